"""What to make of similarities: the policy, as pure code.

A policy is concepts, adjustments, groups and rules. A view is judged by its own similarities:
adjustments correct them, groups count the concepts that reach their thresholds, and a rule holds
when every one of its groups does. The image is rejected if any view is.

`imagesafety.policy_file` reads policies from TOML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

CRITICAL_COUNT = 3  # what a concept over its critical threshold counts, horde-safety's figure


class Action(StrEnum):
    """What a rule asks for."""

    REJECT = "reject"
    FLAG = "flag"  # accept, but record for review


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
class Concept:
    """A named set of prompts."""

    name: str
    prompts: tuple[Prompt, ...]


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
    """A whole policy. `digest` identifies the file that it was read from."""

    model: str
    weights_digest: str | None
    concepts: tuple[Concept, ...]
    adjustments: tuple[Adjustment, ...]
    groups: Mapping[str, Group]
    rules: tuple[Rule, ...]
    digest: str
    detail: Detail | None = None
    partial: Partial = Partial.UNDECODABLE

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
        return None


@dataclass(frozen=True)
class Verdict:
    """What the policy says of an image: the rule that holds and the view that made it hold."""

    rule: Rule | None
    view_index: int | None

    @property
    def rejects(self) -> bool:
        """Whether the image must not be kept."""
        return self.rule is not None and self.rule.action is Action.REJECT


NO_RULE = Verdict(rule=None, view_index=None)


def named(policy: Policy, similarities: Sequence[float]) -> dict[str, float]:
    """One view's similarities by concept.

    Raises ValueError if there is not one finite number for each concept of the policy: a verdict
    on anything else would be a silent accept.
    """
    if len(similarities) != len(policy.concepts):
        raise ValueError(f"{len(similarities)} similarities for {len(policy.concepts)} concepts")
    if not all(math.isfinite(value) for value in similarities):
        raise ValueError("a similarity is not a finite number")
    return {
        concept.name: value for concept, value in zip(policy.concepts, similarities, strict=True)
    }


def adjusted(policy: Policy, similarities: Mapping[str, float]) -> dict[str, float]:
    """Applies the adjustments, in the order of the file; each sees what the earlier ones made.

    That is the order of horde-safety, whose published decisions this has to reproduce.
    """
    result = dict(similarities)
    twins = policy.twin_thresholds
    for adjustment in policy.adjustments:
        if any(result[concept] < value for concept, value in adjustment.when.items()):
            continue
        for concept, value in adjustment.add.items():
            if any(result[twin] >= threshold for twin, threshold in twins.get(concept, ())):
                continue
            result[concept] += value
    return result


def judge_view(policy: Policy, similarities: Sequence[float]) -> Rule | None:
    """The first rejecting rule that holds for a view, else the first flagging one, else None.

    `similarities` has one cosine per concept, in the policy's order. Raises ValueError as `named`.
    """
    values = adjusted(policy, named(policy, similarities))
    holding = {name for name, group in policy.groups.items() if group.holds(values)}
    hits = [rule for rule in policy.rules if holding.issuperset(rule.groups)]
    rejecting = (rule for rule in hits if rule.action is Action.REJECT)
    return next(rejecting, hits[0] if hits else None)


def judge_image(policy: Policy, views: Sequence[Sequence[float]]) -> Verdict:
    """The verdict on an image from the similarities of its views.

    Any rejected view rejects the image. Raises ValueError as `named`, or if there are no views.
    """
    if not views:
        raise ValueError("no views to judge")
    verdict = NO_RULE
    for index, similarities in enumerate(views):
        rule = judge_view(policy, similarities)
        if rule is not None and rule.action is Action.REJECT:
            return Verdict(rule, index)
        if rule is not None and verdict.rule is None:
            verdict = Verdict(rule, index)
    return verdict
