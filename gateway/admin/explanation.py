"""Why a policy said what it said of one view: every threshold, every correction. Pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from imagesafety.policy import CRITICAL_COUNT, Adjustment, Group, Policy, Rule
from imagesafety.verdict import adjusted, named, rules_holding


@dataclass(frozen=True)
class Measured:
    """A concept's similarity, before and after adjustments, and the thresholds that count here.

    `counts` is how much it counts for its group: 0, 1 or 3.
    """

    concept: str
    raw: float
    value: float
    threshold: float | None = None
    critical: float | None = None
    counts: int = 0

    @property
    def was_adjusted(self) -> bool:
        """Whether adjustments moved it."""
        return self.value != self.raw

    @property
    def over(self) -> float | None:
        """How far it is over the threshold; negative: under it."""
        return None if self.threshold is None else self.value - self.threshold


@dataclass(frozen=True)
class GroupOutcome:
    """A group, what it counted, and the concepts in it."""

    group: Group
    count: int
    concepts: tuple[Measured, ...]

    @property
    def holds(self) -> bool:
        """Whether the group is reached."""
        return self.count >= self.group.at_least


@dataclass(frozen=True)
class RuleOutcome:
    """A rule, which of its groups hold, and whether it does."""

    rule: Rule
    groups: tuple[tuple[str, bool], ...]
    holds: bool


@dataclass(frozen=True)
class AdjustmentOutcome:
    """An adjustment, and by how much it moved each concept; empty where it did not apply."""

    adjustment: Adjustment
    applies: bool
    moved: Mapping[str, float]


@dataclass(frozen=True)
class Explanation:
    """Everything that a policy made of one view. `others` are the concepts in no group."""

    rules: tuple[RuleOutcome, ...]
    groups: tuple[GroupOutcome, ...]
    others: tuple[Measured, ...]
    adjustments: tuple[AdjustmentOutcome, ...]

    @property
    def span(self) -> tuple[float, float]:
        """From and to which similarity bars have to reach: zero is always in it."""
        measured = [item for outcome in self.groups for item in outcome.concepts]
        values = [0.0]
        for item in (*measured, *self.others):
            marks = (item.raw, item.value, item.threshold, item.critical)
            values += [value for value in marks if value is not None]
        for outcome in self.adjustments:
            values += outcome.adjustment.when.values()
        low, high = min(values), max(values)
        room = 0.06 * (high - low or 1.0)
        return (low - room if low < 0 else 0.0), high + room


def explain(policy: Policy, similarities: Sequence[float]) -> Explanation:
    """What `policy` makes of one view. Raises ValueError as `imagesafety.verdict.named`."""
    raw = named(policy, similarities)
    values = adjusted(policy, raw)
    holding = {rule.name for rule in rules_holding(policy, similarities)}
    groups = tuple(_group(group, raw, values) for group in policy.groups.values())
    held = {outcome.group.name: outcome.holds for outcome in groups}
    grouped = {concept for group in policy.groups.values() for concept in group.thresholds}
    return Explanation(
        rules=tuple(
            RuleOutcome(rule, tuple((n, held[n]) for n in rule.groups), rule.name in holding)
            for rule in policy.rules
        ),
        groups=groups,
        others=tuple(Measured(c, raw[c], values[c]) for c in raw if c not in grouped),
        adjustments=_adjustments(policy, raw),
    )


def _group(group: Group, raw: Mapping[str, float], values: Mapping[str, float]) -> GroupOutcome:
    concepts = []
    for concept, threshold in group.thresholds.items():
        critical, value = group.critical.get(concept), values[concept]
        counts = int(value >= threshold)
        if critical is not None and value >= critical:
            counts = CRITICAL_COUNT
        concepts.append(Measured(concept, raw[concept], value, threshold, critical, counts))
    return GroupOutcome(group, group.count(values), tuple(concepts))


def _adjustments(policy: Policy, raw: Mapping[str, float]) -> tuple[AdjustmentOutcome, ...]:
    """Each adjustment with what it did; each sees what the earlier ones made."""
    outcomes, before = [], dict(raw)
    for index, adjustment in enumerate(policy.adjustments):
        applies = all(before[concept] >= least for concept, least in adjustment.when.items())
        after = adjusted(replace(policy, adjustments=policy.adjustments[: index + 1]), raw)
        moved = {c: after[c] - before[c] for c in adjustment.add if after[c] != before[c]}
        outcomes.append(AdjustmentOutcome(adjustment, applies, moved))
        before = after
    return tuple(outcomes)
