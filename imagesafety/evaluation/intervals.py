"""How sure a measured share is: intervals of binomial proportions. Pure code.

Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the
binomial, Biometrika 26 (1934): never narrower than it says. Wilson, Probable inference, JASA 22
(1927): right on average. All of them mean `k` of `n` that were drawn independently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval: it covers the true share at least as often as `confidence` says."""
    _check(k, n, confidence)
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return Interval(low, high)


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The score interval: narrower, and it covers the true share about as often as it says."""
    _check(k, n, confidence)
    if n == 0:
        return Interval(0.0, 1.0)
    z = float(stats.norm.ppf(1 - (1 - confidence) / 2))
    share, spread = k / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / n / 4) / (1 + spread)
    return Interval(
        0.0 if k == 0 else max(0.0, centre - half), 1.0 if k == n else min(1.0, centre + half)
    )


def upper_bound(k: int, n: int, confidence: float = 0.95) -> float:
    """What the true share is at most, by Clopper and Pearson, one-sided."""
    _check(k, n, confidence)
    return float(stats.beta.ppf(confidence, k + 1, n - k)) if k < n else 1.0


def images_needed(rate: float, confidence: float = 0.95) -> int:
    """How many images have to show no error at all before `rate` is an upper bound.

    About 3 / rate for a confidence of 95 %, the "rule of three".
    """
    if not 0 < rate < 1:
        raise ValueError(f"a rate is between 0 and 1, not {rate}")
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))


def _check(k: int, n: int, confidence: float) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
