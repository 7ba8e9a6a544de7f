"""Whether a backend would change a verdict of the policies that ship with the project.

Policies are the gateway's; here they only check a backend. `shipped_policies.json` holds those of
policies/, by model; a test keeps both files, and the two ways to judge, the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from inference.backends.tower import Embeddings

SHIPPED = Path(__file__).with_name("shipped_policies.json")
_CRITICAL_COUNT = 3

Similarities = Mapping[str, float]


class ShippedPolicy:
    """A policy, as far as verdicts need it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.concepts: dict[str, list[str]] = document["concepts"]
        self._adjustments = document.get("adjustments", ())
        self._groups: dict[str, Any] = document["groups"]
        self._rules = document["rules"]

    def rules_that_hold(self, similarities: Similarities) -> frozenset[str]:
        """The names of the rules that hold for a view."""
        values = self._adjusted(similarities)
        groups = {name for name, group in self._groups.items() if _holds(group, values)}
        return frozenset(rule["name"] for rule in self._rules if groups.issuperset(rule["all"]))

    def _adjusted(self, similarities: Similarities) -> dict[str, float]:
        values = dict(similarities)
        for adjustment in self._adjustments:
            if any(values[concept] < value for concept, value in adjustment["when"].items()):
                continue
            for concept, value in adjustment["add"].items():
                if not self._has_twin(concept, values):
                    values[concept] += value
        return values

    def _has_twin(self, concept: str, values: Similarities) -> bool:
        return any(
            concept in pair and values[twin] >= group["thresholds"][twin]
            for group in self._groups.values()
            for pair in group.get("twins", ())
            for twin in pair
            if twin != concept
        )


def _holds(group: Mapping[str, Any], values: Similarities) -> bool:
    count = 0
    for concept, threshold in group["thresholds"].items():
        if values[concept] >= group.get("critical", {}).get(concept, np.inf):
            count += _CRITICAL_COUNT
        elif values[concept] >= threshold:
            count += 1
    return bool(count >= group.get("at_least", 1))


def shipped_policy(model: str) -> ShippedPolicy | None:
    """The policy that ships for a model, by the name of the `model` setting."""
    document = json.loads(SHIPPED.read_text(encoding="utf-8")).get(model)
    return None if document is None else ShippedPolicy(document)


class VerdictCheck:
    """Compares the verdicts on pictures of two ways to embed them."""

    def __init__(self, model: str, encode_texts: Callable[[Sequence[str]], Embeddings]) -> None:
        """Embeds the concepts of the model's policy, when they are needed."""
        self._policy = shipped_policy(model)
        self._encode_texts = encode_texts

    def changed(self, reference: Embeddings, embeddings: Embeddings) -> int:
        """On how many pictures another set of rules holds."""
        pairs = zip(self._verdicts(reference), self._verdicts(embeddings), strict=True)
        return sum(one != other for one, other in pairs)

    def _verdicts(self, embeddings: Embeddings) -> list[frozenset[str]]:
        policy = self._policy
        if policy is None:
            return [frozenset()] * len(embeddings)
        return [
            policy.rules_that_hold(dict(zip(policy.concepts, map(float, row), strict=True)))
            for row in embeddings @ self._concept_vectors.T
        ]

    @cached_property
    def _concept_vectors(self) -> Embeddings:
        concepts = {} if self._policy is None else self._policy.concepts
        means = [self._encode_texts(prompts).mean(axis=0) for prompts in concepts.values()]
        return np.stack([mean / np.linalg.norm(mean) for mean in means])
