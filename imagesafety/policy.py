"""What a policy is: concepts, adjustments, groups and rules, as plain values.

`imagesafety.policy_file` reads policies from TOML, `imagesafety.verdict` judges images by them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

CRITICAL_COUNT = 3  # what a concept over its critical threshold counts, horde-safety's figure


class Action(StrEnum):
    """What a rule asks for."""

    REJECT = "reject"
    FLAG = "flag"  # accept, but record for review


class Mode(StrEnum):
    """How much a rule may do, or the rules for one client."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # accept, but record what would have been
    OFF = "off"


class Partial(StrEnum):
    """What to make of a file of which only a part could be looked at, and that part is harmless."""

    UNDECODABLE = "undecodable"  # whatever the gateway does with files that can't be decoded
    ACCEPT = "accept"
    REJECT = "reject"


@dataclass(frozen=True)
class Prompt:
    """One wording of a concept, and its weight in the mean."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Probe:
    """A trained direction in the embedding space, and what is added to the cosine with it.

    `sha256` is that of `file`, which has the rest. Where only the text of a policy is known, that
    is not there: `vector` is None then. Recorded similarities can be judged all the same.
    """

    file: str
    sha256: str
    vector: tuple[float, ...] | None = field(default=None, repr=False, compare=False)
    bias: float = field(default=0.0, compare=False)
    weights_digest: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Concept:
    """A name, and what it means: prompts or a probe."""

    name: str
    prompts: tuple[Prompt, ...] = ()
    probe: Probe | None = None

    @property
    def meaning(self) -> tuple[Prompt, ...] | str:
        """The same for concepts that have the same similarities, whatever their names."""
        return self.probe.sha256 if self.probe is not None else self.prompts


@dataclass(frozen=True)
class Adjustment:
    """A correction: when every concept of `when` is at or over its value, add `add`."""

    when: Mapping[str, float]
    add: Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """Counts concepts at or over their threshold; holds at `at_least`.

    `critical` gives some concepts a second, higher threshold at which they count three times.
    `twins` names pairs of words for one thing: while one of a pair is at or over its threshold,
    adjustments leave the other alone, so that a correction can't make one thing count twice.
    """

    name: str
    at_least: int
    thresholds: Mapping[str, float]
    critical: Mapping[str, float]
    twins: tuple[tuple[str, str], ...] = ()

    def count(self, similarities: Mapping[str, float]) -> int:
        """How much the group counts for one view's adjusted similarities."""
        total = 0
        for concept, threshold in self.thresholds.items():
            if similarities[concept] >= self.critical.get(concept, math.inf):
                total += CRITICAL_COUNT
            elif similarities[concept] >= threshold:
                total += 1
        return total

    def holds(self, similarities: Mapping[str, float]) -> bool:
        """Whether the group is reached by one view's adjusted similarities."""
        return self.count(similarities) >= self.at_least


@dataclass(frozen=True)
class Rule:
    """Holds for a view when all its groups do."""

    name: str
    groups: tuple[str, ...]
    action: Action
    mode: Mode = Mode.ENFORCE

    @property
    def rejects(self) -> bool:
        """Whether it asks for more than a flag."""
        return self.action is Action.REJECT


@dataclass(frozen=True)
class Band:
    """A range of similarities to a concept, ends included."""

    concept: str
    at_least: float
    at_most: float


@dataclass(frozen=True)
class Detail:
    """Looks closer, in `tiles`×`tiles` tiles: where a threshold is within `margin`, or always."""

    tiles: int
    margin: float | None


@dataclass(frozen=True)
class Policy:
    """A whole policy. `digest` identifies `text`, the file that it was read from."""

    model: str
    weights_digest: str | None
    concepts: tuple[Concept, ...]
    adjustments: tuple[Adjustment, ...]
    groups: Mapping[str, Group]
    rules: tuple[Rule, ...]
    digest: str
    detail: Detail | None = None
    partial: Partial = Partial.UNDECODABLE
    text: str = field(default="", repr=False, compare=False)

    @cached_property
    def concepts_digest(self) -> str:
        """Identifies the concepts, in their order: what the similarities are to."""
        described = [(concept.name, _described(concept)) for concept in self.concepts]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    @property
    def tiles(self) -> int:
        """How many tiles per side a closer look takes; 1 where there is none."""
        return self.detail.tiles if self.detail is not None else 1

    @cached_property
    def closer_when(self) -> tuple[Band, ...]:
        """The similarities that call for a closer look; empty where every view gets one, or none.

        A band is as much wider than the margin as adjustments may move the similarity.
        """
        if self.detail is None or self.detail.margin is None:
            return ()
        margin, bands = self.detail.margin, []
        for group in self.groups.values():
            for thresholds in (group.thresholds, group.critical):
                for concept, threshold in thresholds.items():
                    moved = [change.add.get(concept, 0.0) for change in self.adjustments]
                    up, down = sum(m for m in moved if m > 0), sum(m for m in moved if m < 0)
                    bands.append(Band(concept, threshold - margin - up, threshold + margin - down))
        return tuple(bands)

    @cached_property
    def twin_thresholds(self) -> dict[str, list[tuple[str, float]]]:
        """For each concept its twins, with the threshold at which a twin protects it."""
        result: dict[str, list[tuple[str, float]]] = {}
        for group in self.groups.values():
            for one, other in group.twins:
                result.setdefault(one, []).append((other, group.thresholds[other]))
                result.setdefault(other, []).append((one, group.thresholds[one]))
        return result

    def mismatch(self, model: str, weights_digest: str) -> str | None:
        """Why the similarities of this model must not be judged by the policy, if so."""
        if model != self.model:
            return f"the policy is for model {self.model}, inference has {model}"
        if self.weights_digest not in (None, weights_digest):
            return f"the policy is for other weights of {model} than inference has"
        for concept in self.concepts:
            if concept.probe and concept.probe.weights_digest not in (None, weights_digest):
                return f"the probe of {concept.name!r} is for other weights than inference has"
        return None


def _described(concept: Concept) -> object:
    if concept.probe is not None:
        return {"probe": concept.probe.sha256}
    return [(prompt.text, prompt.weight) for prompt in concept.prompts]
