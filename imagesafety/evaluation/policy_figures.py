"""What a whole policy does to labelled images. Pure code.

Rules in shadow mode do nothing to an upload, so the figures are told twice: of the policy as it is,
and as it would be if those rules were enforced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesafety.evaluation.collected import NO, UNKNOWN, YES, Collected
from imagesafety.evaluation.intervals import Interval
from imagesafety.evaluation.proportion import Proportion
from imagesafety.policy import Mode, Rule

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """What becomes of images of one kind: rejected, or accepted but flagged for review."""

    rejected: Proportion
    flagged: Proportion

    @property
    def images(self) -> int:
        """How many there are."""
        return self.rejected.total

    @property
    def accepted(self) -> int:
        """How many are accepted, flagged ones among them."""
        return self.images - self.rejected.count


@dataclass(frozen=True)
class ExpectedPrecision:
    """How many of the rejects are right where `prevalence` of the uploads are to be rejected."""

    prevalence: float
    precision: float | None  # None: nothing at all is rejected
    interval: Interval

    @property
    def is_only_bounded(self) -> bool:
        """No false reject was seen: that shows how many are right at least, and no more."""
        return self.precision == 1


@dataclass(frozen=True)
class Rates:
    """What a policy does to images to be accepted, to be rejected, and to those without a label.

    False rejects are `accept.rejected`, false accepts are what of `reject` is not rejected.
    """

    accept: Answers
    reject: Answers
    unlabelled: Answers
    false_accepts: Proportion
    expected: ExpectedPrecision | None


@dataclass(frozen=True)
class RuleFigures:
    """How often a rule holds, and how often only this one rejects (or flags) an image."""

    rule: Rule
    wrong: int  # of images to be accepted
    right: int  # of images to be rejected
    unlabelled: int
    only_wrong: int
    only_right: int


@dataclass(frozen=True)
class PolicyFigures:
    """The whole. `with_shadow` is None where no rule is in shadow mode."""

    rates: Rates
    with_shadow: Rates | None
    rules: tuple[RuleFigures, ...]
    partial_accepted: int  # images whose visible part no enforced rule rejects


def policy_figures(
    rules: tuple[Rule, ...],
    collected: Collected,
    prevalence: float,
    confidence: float,
    *,
    rejects_partial: bool,
) -> PolicyFigures:
    """What the rules, none of them off, do to the images.

    `rejects_partial`: the policy rejects what could be looked at only in part.
    """
    at_once = collected.partial() & rejects_partial
    count = len(collected.rows)
    holds = [collected.margins(index) >= 0 for index in range(len(rules))]
    enforced = [rule.mode is Mode.ENFORCE for rule in rules]
    rejected = _any(count, rules, holds, enforced, rejects=True)
    as_it_is = _rates(
        collected,
        rejected | at_once,
        _any(count, rules, holds, enforced, rejects=False),
        prevalence,
        confidence,
    )
    with_shadow = None
    if not all(enforced):
        every = [True] * len(rules)
        with_shadow = _rates(
            collected,
            _any(count, rules, holds, every, rejects=True) | at_once,
            _any(count, rules, holds, every, rejects=False),
            prevalence,
            confidence,
        )
    return PolicyFigures(
        as_it_is,
        with_shadow,
        tuple(_rule_figures(rules, holds, index, collected) for index in range(len(rules))),
        int((collected.partial() & ~rejected).sum()),
    )


def _any(
    count: int,
    rules: tuple[Rule, ...],
    holds: list[Booleans],
    counted: list[bool],
    *,
    rejects: bool,
) -> Booleans:
    """Whether any of the rules holds that are counted and reject, or flag."""
    result = np.zeros(count, bool)
    for rule, held, counts in zip(rules, holds, counted, strict=True):
        if counts and rule.rejects is rejects:
            result |= held
    return result


def _rates(
    collected: Collected,
    rejected: Booleans,
    flagged: Booleans,
    prevalence: float,
    confidence: float,
) -> Rates:
    def answers(label: int) -> Answers:
        chosen = collected.decisions == label
        total = int(chosen.sum())
        return Answers(
            Proportion.of(int((chosen & rejected).sum()), total, confidence),
            Proportion.of(int((chosen & flagged & ~rejected).sum()), total, confidence),
        )

    accept, reject = answers(NO), answers(YES)
    return Rates(
        accept,
        reject,
        answers(UNKNOWN),
        Proportion.of(reject.accepted, reject.images, confidence),
        expected_precision(accept.rejected, reject.rejected, prevalence, confidence),
    )


def expected_precision(
    false_rejects: Proportion, hits: Proportion, prevalence: float, confidence: float
) -> ExpectedPrecision | None:
    """The precision to expect, None where images of either kind are missing.

    Both rates are taken at the worse and at the better ends of intervals that each hold with the
    root of the confidence: the two samples are independent, so both hold with the confidence.
    """
    if not false_rejects.total or not hits.total:
        return None
    each = math.sqrt(confidence)
    wrong = Proportion.of(false_rejects.count, false_rejects.total, each)
    right = Proportion.of(hits.count, hits.total, each)
    return ExpectedPrecision(
        prevalence,
        _precision(right.share or 0.0, wrong.share or 0.0, prevalence),
        Interval(
            _precision(right.interval.low, wrong.interval.high, prevalence) or 0.0,
            _precision(right.interval.high, wrong.interval.low, prevalence) or 0.0,
        ),
    )


def _precision(recall: float, false_rejects: float, prevalence: float) -> float | None:
    right, wrong = recall * prevalence, false_rejects * (1 - prevalence)
    return right / (right + wrong) if right + wrong > 0 else None


def _rule_figures(
    rules: tuple[Rule, ...], holds: list[Booleans], index: int, collected: Collected
) -> RuleFigures:
    rule, held = rules[index], holds[index]
    only = held.copy()
    for other, also in zip(rules, holds, strict=True):
        # Beside a rule that is enforced, one in shadow mode does nothing.
        counts = other.mode is Mode.ENFORCE or rule.mode is Mode.SHADOW
        if other is not rule and other.rejects is rule.rejects and counts:
            only &= ~also
    wrong, right = collected.decisions == NO, collected.decisions == YES
    return RuleFigures(
        rule,
        int((held & wrong).sum()),
        int((held & right).sum()),
        int((held & (collected.decisions == UNKNOWN)).sum()),
        int((only & wrong).sum()),
        int((only & right).sum()),
    )
