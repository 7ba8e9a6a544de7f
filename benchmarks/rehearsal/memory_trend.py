"""Whether memory grows: a straight line through its samples. Pure code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

HOUR = 3600.0


@dataclass(frozen=True)
class Trend:
    """A slope per hour, and its standard error, in the unit of the samples."""

    per_hour: float
    error: float

    def is_flat(self, allowed: float) -> bool | None:
        """Whether it grows by at most `allowed` an hour; None where two errors leave that open."""
        if self.per_hour + 2 * self.error <= allowed:
            return True
        return False if self.per_hour - 2 * self.error > allowed else None


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Ordinary least squares of values at times in seconds. Raises ValueError for under 3.

    The error supposes independent residuals. Those of memory hang together, so they are counted as
    fewer: n × (1 - r) / (1 + r), r being the correlation of neighbours (Santer et al. 2000,
    doi:10.1029/1999JD901105, equation 6).
    """
    count = len(times)
    if count < 3 or count != len(values):
        raise ValueError("a trend needs at least three samples")
    mean_time, mean = sum(times) / count, sum(values) / count
    spread = sum((time - mean_time) ** 2 for time in times)
    if not spread:
        raise ValueError("a trend needs samples at different times")
    slope = sum((t - mean_time) * (v - mean) for t, v in zip(times, values, strict=True)) / spread
    residuals = [v - mean - slope * (t - mean_time) for t, v in zip(times, values, strict=True)]
    squares = sum(residual**2 for residual in residuals)
    effective = _effective(residuals, squares)
    error = math.sqrt(squares / (effective - 2) / spread) if squares else 0.0
    return Trend(slope * HOUR, error * HOUR)


def _effective(residuals: Sequence[float], squares: float) -> float:
    """How many independent samples the residuals are worth; over 2."""
    if not squares:
        return float(len(residuals))
    neighbours = sum(a * b for a, b in itertools.pairwise(residuals)) / squares
    correlation = min(max(neighbours, 0.0), 0.99)
    return max(len(residuals) * (1 - correlation) / (1 + correlation), 2.5)
