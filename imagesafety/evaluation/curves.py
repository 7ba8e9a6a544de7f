"""What each threshold does: ROC and precision-recall curves, and tables of thresholds. Pure code.

An image is taken for a positive when its score is at or over the threshold, as policies have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from imagesafety.evaluation.intervals import images_needed, upper_bound
from imagesafety.evaluation.proportion import Proportion
from imagesafety.evaluation.separation import AnyFloats

Counts = npt.NDArray[np.int64]
RATES = (1e-2, 1e-3, 1e-4, 1e-5)
HIGHEST = 1.0  # threshold that a policy takes


@dataclass(frozen=True, eq=False)
class Curve:
    """For each threshold, the greatest first, how many images of either kind are at or over it."""

    thresholds: AnyFloats
    positives_over: Counts
    negatives_over: Counts
    positives: int
    negatives: int

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """The share of positives that each threshold finds."""
        return self.positives_over / self.positives

    @property
    def false_rejects(self) -> npt.NDArray[np.float64]:
        """The share of negatives that each threshold takes for positives."""
        return self.negatives_over / self.negatives

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """The share of positives among what is over each threshold."""
        return self.positives_over / (self.positives_over + self.negatives_over)

    @property
    def average_precision(self) -> float:
        """The mean of the precision, each threshold weighted by the recall that it adds."""
        gained = np.diff(self.recall, prepend=0.0)
        return float((gained * self.precision).sum())

    def thinned(self, most: int = 400) -> Curve:
        """The curve with about so many points, those of few negatives among them."""
        if len(self.thresholds) <= most:
            return self
        low = max(1.0, float(self.negatives_over[0]))
        few = np.searchsorted(self.negatives_over, np.geomspace(low, self.negatives, most // 2))
        some = np.searchsorted(self.positives_over, np.linspace(0, self.positives, most // 2))
        last = len(self.thresholds) - 1
        chosen = np.unique(np.clip(np.concatenate(([0, last], few, few - 1, some)), 0, last))
        return Curve(
            self.thresholds[chosen],
            self.positives_over[chosen],
            self.negatives_over[chosen],
            self.positives,
            self.negatives,
        )


def curve(positives: AnyFloats, negatives: AnyFloats) -> Curve | None:
    """The curve of the scores of two kinds of images; None if there are none of a kind."""
    if not len(positives) or not len(negatives):
        return None
    values = np.concatenate((positives, negatives))
    kinds = np.zeros(len(values), bool)
    kinds[: len(positives)] = True
    order = np.argsort(-values, kind="stable")
    values, kinds = values[order], kinds[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    found = np.cumsum(kinds)[ends]
    return Curve(values[ends], found, ends + 1 - found, len(positives), len(negatives))


class Missing(StrEnum):
    """Why no threshold is known to keep a rate."""

    TOO_FEW = "too few negatives to say"
    TOO_SIMILAR = "too many negatives have a similarity of 1, the highest threshold"


@dataclass(frozen=True)
class ThresholdRow:
    """The threshold for one false-reject rate, and what it does to the images that it was taken of.

    `threshold` is None where there is none, and `missing` says why.
    """

    rate: float
    needed: int  # how many negatives it takes to show such a rate
    threshold: float | None = None
    false_rejects: Proportion | None = None
    recall: Proportion | None = None
    missing: Missing | None = None


def threshold_table(
    positives: AnyFloats,
    negatives: AnyFloats,
    rates: Sequence[float] = RATES,
    confidence: float = 0.95,
) -> tuple[ThresholdRow, ...]:
    """For each rate the lowest threshold at which no more of the negatives are at or over it."""
    falling = np.sort(negatives)[::-1]
    total = len(falling)
    rows = []
    for rate in rates:
        needed = images_needed(rate, confidence)
        # If no false reject at all could not show the rate, no count of them can.
        if total == 0 or upper_bound(0, total, confidence) > rate:
            rows.append(ThresholdRow(rate, needed, missing=Missing.TOO_FEW))
            continue
        allowed = math.floor(rate * total * (1 + 1e-12))
        threshold = _just_over(float(falling[allowed]))
        if threshold > HIGHEST:
            rows.append(ThresholdRow(rate, needed, missing=Missing.TOO_SIMILAR))
            continue
        over = int((falling >= threshold).sum())
        found = int((positives >= threshold).sum())
        rows.append(
            ThresholdRow(
                rate,
                needed,
                float(threshold),
                Proportion.of(over, total, confidence),
                Proportion.of(found, len(positives), confidence) if len(positives) else None,
            )
        )
    return tuple(rows)


def _just_over(score: float) -> np.float64:
    """A number over it that can be written in a policy. Not a float, which float32 would round."""
    return np.float64((math.floor(score * 1e6) + 1) / 1e6)
