"""Thresholds by a false-reject budget: the loosest level of which the promise can be made.

The whole policy is what is bounded, not each concept: images are judged by all its rules together.

Why the promise holds although the level was chosen by the same images: percentiles are learned on
other images, so the family of policies is fixed before. In it only one number is left to choose.
(That takes for granted that a balance is not of these images either: thresholds that somebody set
by hand on the very images by which they are then calibrated fit those better than others.)
Let T be the strictest level at which an image would be rejected. The level chosen is the loosest
with at most k of n images' T at or over it, an order statistic of T, and k depends on n and the
budget alone. If more than the budget were rejected at that level, n images would have shown at
most k of them, of which the chance is at most 1 - confidence: that is how Clopper and Pearson's
bound is defined, and k is the largest number whose bound is within the budget. The true rate lies
between Beta(k, n - k + 1) and Beta(k + 1, n - k); levels in steps only move it down.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import partial

import numpy as np

from imagesafety.calibration.array_verdict import rejected
from imagesafety.calibration.sample import MAP_ONE_IN, Sample
from imagesafety.calibration.strictness import Family
from imagesafety.evaluation.intervals import images_needed, upper_bound
from imagesafety.policy import Partial, Policy


class CalibrationError(Exception):
    """Material or a policy that can't be calibrated; the message is one line."""


@dataclass(frozen=True)
class Promise:
    """What can be said of the share of benign images that a policy rejects.

    It rejects `rejected` of `images` that its percentiles were not learned on, and with
    `confidence`, one-sided, at most the share `at_most` of benign images like them.
    """

    budget: float
    confidence: float
    level: float
    rejected: int
    images: int
    at_most: float

    @property
    def is_kept(self) -> bool:
        """Whether the budget itself can be promised."""
        return self.at_most <= self.budget

    @property
    def wanted(self) -> int:
        """How many different benign images it takes to promise the budget.

        Those that the percentiles are learned on are among them: the fewest of which, without a
        fifth that is rounded down, enough are left.
        """
        measured = images_needed(self.budget, self.confidence)
        return (measured - 1) * MAP_ONE_IN // (MAP_ONE_IN - 1) + 1


def most_allowed(images: int, budget: float, confidence: float) -> int | None:
    """How many of so many may be rejected for the budget to be promised; None: not even none."""
    within = bisect_right(
        range(images + 1), budget, key=partial(upper_bound, n=images, confidence=confidence)
    )
    return within - 1 if within else None


def within_budget(
    family: Family, sample: Sample, budget: float, confidence: float
) -> tuple[Policy, Promise]:
    """The policy of the loosest level that keeps the budget, and what can be promised of it.

    Where `sample` is too small for the budget, it is the loosest level that rejects none of it.
    Raises CalibrationError if the strictest level rejects too many.
    """
    allowed = most_allowed(len(sample), budget, confidence)
    level = _loosest(family, sample, allowed or 0)
    policy = family.at(level)
    promise = Promise(
        budget=budget,
        confidence=confidence,
        level=level,
        rejected=int(rejected(policy, sample).sum()),
        images=len(sample),
        # The bound of what was allowed, not of what came out: which of them was found was seen
        # only afterwards.
        at_most=upper_bound(allowed or 0, len(sample), confidence),
    )
    return policy, promise


def _loosest(family: Family, sample: Sample, allowed: int) -> float:
    strictest = len(family.levels) - 1
    if (count := _count(family, sample, strictest)) > allowed:
        raise CalibrationError(
            f"even the strictest thresholds reject {count} of {len(sample)} benign images"
            + _in_part(family.policy, sample)
        )
    if not family.is_monotone:
        return family.levels[_scan(family, sample, allowed)]
    indices = range(strictest + 1)
    found = bisect_left(indices, -allowed, key=lambda index: -_count(family, sample, index))
    return family.levels[found]


def _in_part(policy: Policy, sample: Sample) -> str:
    if policy.partial is not Partial.REJECT or not sample.partial.any():
        return ""
    return f", {sample.partial.sum()} of which were seen only in part: the policy rejects those"


def _scan(family: Family, sample: Sample, allowed: int) -> int:
    """The loosest level such that it and all stricter ones together reject at most so many."""
    ever = np.zeros(len(sample), bool)
    for index in range(len(family.levels) - 1, -1, -1):
        waiting = np.flatnonzero(~ever)
        found = rejected(family.at(family.levels[index]), sample.part(~ever))
        ever[waiting[found]] = True
        if ever.sum() > allowed:
            return index + 1
    return 0


def _count(family: Family, sample: Sample, index: int) -> int:
    return int(rejected(family.at(family.levels[index]), sample).sum())
