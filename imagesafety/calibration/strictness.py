"""Policies of one family: the same rules, with thresholds of one strictness.

A *level* is a share of benign images. At a level every concept's threshold stands where that share
of benign images reaches it, so that all concepts are equally rare at their thresholds, whatever
their cosines are; or, with the *balance* of a policy, where a share reaches it that is in the same
proportion to those of the others as in that policy. Smaller shares are stricter on what counts:
fewer images are rejected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from imagesafety.calibration.array_verdict import is_counted
from imagesafety.calibration.percentiles import RAREST, Percentiles
from imagesafety.policy import Group, Policy

DIGITS = 5  # behind the point, of what is written; similarities spread over some hundredths
CRITICAL_RARITY = 0.1  # `critical` stands where a concept is ten times as rare as at its threshold
# Over a threshold that half of all benign images reach, a concept says nothing.
LOOSEST, STEPS_A_DECADE = 0.5, 100


@dataclass(frozen=True)
class Balance:
    """How common a policy's thresholds are among benign images, against each other.

    `weights` has, for a group and a concept, the share that reaches the threshold, in terms of
    `most`, which is the greatest of these shares. Without weights all are equally common.
    """

    weights: Mapping[tuple[str, str], float] = field(default_factory=dict)
    most: float = LOOSEST

    def weight(self, group: str, concept: str) -> float:
        """How common the threshold is, in terms of the most common one."""
        return self.weights.get((group, concept), 1.0)


EQUAL = Balance()


@dataclass(frozen=True)
class Family:
    """The policies that a policy becomes by moving the thresholds of its rejecting rules.

    With EQUAL balance, all concepts are equally rare at their thresholds.
    """

    policy: Policy
    percentiles: Mapping[str, Percentiles]
    balance: Balance = EQUAL

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """From the loosest to the strictest; that of the balanced policy itself is one of them."""
        looser = math.floor(STEPS_A_DECADE * math.log10(LOOSEST / self.balance.most))
        stricter = math.ceil(STEPS_A_DECADE * math.log10(self.balance.most / RAREST))
        return tuple(
            self.balance.most * 10 ** (-step / STEPS_A_DECADE) for step in range(-looser, stricter)
        )

    @cached_property
    def moved(self) -> tuple[str, ...]:
        """The groups whose thresholds move: those of the rules that the budget counts."""
        counted = {group for rule in self.policy.rules if is_counted(rule) for group in rule.groups}
        return tuple(name for name in self.policy.groups if name in counted)

    @cached_property
    def is_monotone(self) -> bool:
        """Whether a stricter level never rejects what a looser one accepts.

        It may where a concept has a twin and an adjustment lifts it: a twin that falls under its
        threshold no longer keeps the adjustment away.
        """
        twins = self.policy.twin_thresholds
        added = {concept for change in self.policy.adjustments for concept in change.add}
        return not added & twins.keys()

    def most_common(self, group: str) -> float:
        """The share at the group's most common threshold, in levels."""
        concepts = self.policy.groups[group].thresholds
        return max(self.balance.weight(group, concept) for concept in concepts)

    def at(self, level: float) -> Policy:
        """The policy with all moved groups at one level."""
        return self.at_levels(dict.fromkeys(self.moved, level))

    def at_levels(self, levels: Mapping[str, float]) -> Policy:
        """The policy with each of these groups at its own level."""
        moved = {name: self._group(self.policy.groups[name], at) for name, at in levels.items()}
        return replace(self.policy, groups={**self.policy.groups, **moved})

    def _group(self, group: Group, level: float) -> Group:
        levels = {name: level * self.balance.weight(group.name, name) for name in group.thresholds}
        thresholds = {name: self._threshold(name, levels[name]) for name in group.thresholds}
        critical = {}
        for name, value in group.critical.items():
            # What always counts three times goes on to.
            at_once = value == group.thresholds[name]
            rare = levels[name] if at_once else levels[name] * CRITICAL_RARITY
            critical[name] = self._threshold(name, rare)
        return replace(group, thresholds=thresholds, critical=critical)

    def _threshold(self, concept: str, level: float) -> float:
        """As it is written, rounded to the strict side: what is measured is what is written."""
        factor = 10.0**DIGITS
        value = math.ceil(self.percentiles[concept].value(level) * factor) / factor
        return min(1.0, max(-1.0, value))


def balance_of(policy: Policy, percentiles: Mapping[str, Percentiles]) -> Balance:
    """How the thresholds of a policy's rejecting rules are balanced; equally, if nobody can tell.

    That is so where no benign image reaches one of them, or most reach it: such thresholds were
    hardly set with care, and are often placeholders.
    """
    shares = {}
    for name in Family(policy, percentiles).moved:
        for concept, threshold in policy.groups[name].thresholds.items():
            found = percentiles[concept].share(threshold)
            if found.extrapolated or found.share > LOOSEST:
                return EQUAL
            shares[name, concept] = found.share
    return balance_of_shares(shares)


def balance_of_shares(shares: Mapping[tuple[str, str], float]) -> Balance:
    """The balance of thresholds that these shares of benign images reach, each over 0."""
    most = max(shares.values())
    return Balance({place: share / most for place, share in shares.items()}, most)
