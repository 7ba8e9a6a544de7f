"""Whether other scores tell images apart better than those that there are, beyond noise. Pure code.

Both kinds of scores are of the same images, so it is their difference that is tested, which varies
much less than either: DeLong's test for paired ROC curves (DeLong, DeLong and Clarke-Pearson,
Biometrics 44, 1988), one-sided. Of many comparisons some look better by luck, so the level is
divided by their number (Bonferroni). And what is better on the whole must not be worse where it
counts, at the false-reject rates that the sample can show: by the sign test on the images that only
one of both finds there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from imagesafety.calibration.sample import Booleans, Floats
from imagesafety.evaluation.intervals import images_needed
from imagesafety.evaluation.proportion import Proportion
from imagesafety.evaluation.separation import Separation, separation

RATES = (1e-2, 1e-3)
LEVEL = 0.05  # the chance that anything is kept that is no better


class Kind(StrEnum):
    """Where scores come from; the simpler first."""

    RAW = "as they are"
    WEIGHTS = "weighted prompts"
    CONTRAST = "against neutral"
    PROBE = "trained probe"


@dataclass(frozen=True)
class Gain:
    """By how much the AUC of other scores is greater, and how likely luck makes that or more."""

    difference: float
    chance: float


@dataclass(frozen=True)
class Outcome:
    """How well scores do on the images held out.

    `recalls` has for each of RATES what share is found where that share of the others is too; None
    where there are too few images to say. `gain` is over the scores as they are. `worse_at` are the
    rates at which fewer are found, beyond noise.
    """

    kind: Kind
    separation: Separation
    recalls: tuple[Proportion | None, ...]
    gain: Gain | None = None
    worse_at: tuple[float, ...] = ()


def paired_gain(before: tuple[Floats, Floats], after: tuple[Floats, Floats]) -> Gain:
    """The gain of scores `after` over those `before`, each of positives and of negatives."""
    places = [_placements(*scores) for scores in (before, after)]
    over, under = (places[1][kind] - places[0][kind] for kind in (0, 1))
    difference = float(over.mean())
    if min(len(over), len(under)) < 2:
        return Gain(difference, 1.0)
    deviation = math.sqrt(over.var(ddof=1) / len(over) + under.var(ddof=1) / len(under))
    if deviation == 0:
        return Gain(difference, 1.0)
    return Gain(difference, float(stats.norm.sf(difference / deviation)))


def _placements(positives: Floats, negatives: Floats) -> tuple[np.ndarray, np.ndarray]:
    """For each image, the share of the other kind that it is on the right side of."""
    m, n = len(positives), len(negatives)
    ranks = stats.rankdata(np.concatenate((positives, negatives)))
    over = (ranks[:m] - stats.rankdata(positives)) / n
    under = 1 - (ranks[m:] - stats.rankdata(negatives)) / m
    return over, under


def outcomes(scores: Mapping[Kind, Floats], truth: Booleans) -> tuple[Outcome, ...]:
    """How each kind of scores does, of images of which `truth` says what they are."""
    split = {kind: (values[truth], values[~truth]) for kind, values in scores.items()}
    raw = split[Kind.RAW]
    shown = [rate for rate in RATES if int((~truth).sum()) >= images_needed(rate)]
    result = []
    for kind, (positives, negatives) in split.items():
        found = separation(positives, negatives)
        if found is None:
            raise ValueError("images of one kind only")
        hits = {rate: _found_at(positives, negatives, rate) for rate in shown}
        worse = [rate for rate in shown if _is_worse(_found_at(*raw, rate), hits[rate])]
        recalls = (
            Proportion.of(int(hits[rate].sum()), len(positives)) if rate in hits else None
            for rate in RATES
        )
        gain = None if kind is Kind.RAW else paired_gain(raw, split[kind])
        result.append(Outcome(kind, found, tuple(recalls), gain, tuple(worse)))
    return tuple(result)


def _found_at(positives: Floats, negatives: Floats, rate: float) -> Booleans:
    """Which positives are over all negatives but the share `rate`."""
    allowed = int(rate * len(negatives))
    highest = np.partition(negatives, len(negatives) - 1 - allowed)[len(negatives) - 1 - allowed]
    found: Booleans = positives > highest
    return found


def _is_worse(before: Booleans, after: Booleans) -> bool:
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return lost > won and float(stats.binom.sf(lost - 1, lost + won, 0.5)) < LEVEL


def kept(
    found: Sequence[Outcome], scores: Mapping[Kind, Floats], truth: Booleans, comparisons: int
) -> Kind:
    """Which scores to keep, where as many comparisons are made in all.

    Only what is better beyond noise than the scores as they are; of several, the simplest that none
    of the others is better than beyond noise.
    """
    level = LEVEL / max(comparisons, 1)
    better = [
        outcome.kind
        for outcome in found
        if outcome.gain is not None and outcome.gain.chance < level and not outcome.worse_at
    ]
    if not better:
        return Kind.RAW
    chosen = better[0]
    for kind in better[1:]:
        before, after = scores[chosen], scores[kind]
        gain = paired_gain((before[truth], before[~truth]), (after[truth], after[~truth]))
        if gain.chance < level:
            chosen = kind
    return chosen
