"""How well scores tell two kinds of images apart, and how sure that is. Pure code.

The area under the ROC curve (AUC) is the chance that an image of the one kind scores higher than
one of the other, ties counted half: the statistic of Mann and Whitney.

Its interval is DeLong's (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; by ranks as Sun
and Xu, IEEE Signal Processing Letters 21, 2014), on the logit scale, on which it stays between 0
and 1 (Pepe, The Statistical Evaluation of Medical Tests, 2003, section 5.2). Where that says
nothing, because no pair is the wrong way round or there is only one image of a kind, it is method 5
of Newcombe, Statistics in Medicine 25 (2006), part 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from imagesafety.evaluation.intervals import Interval

AnyFloats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Separation:
    """The AUC and its interval."""

    auc: float
    interval: Interval


def separation(
    positives: AnyFloats, negatives: AnyFloats, confidence: float = 0.95
) -> Separation | None:
    """How well `positives` score over `negatives`; None if there are none of a kind."""
    m, n = len(positives), len(negatives)
    if m == 0 or n == 0:
        return None
    ranks = stats.rankdata(np.concatenate((positives, negatives)))
    # For each image, the share of the other kind that it is on the right side of.
    over = (ranks[:m] - stats.rankdata(positives)) / n
    under = 1 - (ranks[m:] - stats.rankdata(negatives)) / m
    auc = float(over.mean())
    variance = over.var(ddof=1) / m + under.var(ddof=1) / n if min(m, n) > 1 else 0.0
    z = float(stats.norm.ppf(1 - (1 - confidence) / 2))
    if variance > 0 and 0 < auc < 1:
        return Separation(auc, _logit_interval(auc, math.sqrt(float(variance)), z))
    return Separation(auc, _newcombe(auc, m, n, z))


def _logit_interval(auc: float, deviation: float, z: float) -> Interval:
    middle, half = math.log(auc / (1 - auc)), z * deviation / (auc * (1 - auc))
    return Interval(_expit(middle - half), _expit(middle + half))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def _newcombe(auc: float, m: int, n: int, z: float) -> Interval:
    """The values that are no further from `auc` than `z` of their own deviations."""
    number = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + number * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (auc - theta) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    # At the ends the function is 0 beside the root that is meant.
    low = float(optimize.brentq(excess, 0.0, min(auc, 1 - 1e-12))) if auc > 0 else 0.0
    high = float(optimize.brentq(excess, max(auc, 1e-12), 1.0)) if auc < 1 else 1.0
    return Interval(low, high)
