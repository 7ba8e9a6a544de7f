"""False-reject percentiles: how rare a similarity is among benign images.

A raw cosine means something for one concept of one model only. The share of benign images that
reach it means the same for all of them, so thresholds are set, compared and carried as shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesafety.calibration.sample import Floats, Sample

TAIL_SHARE, FEWEST_IN_TAIL = 0.05, 20
RAREST = 1e-12  # no smaller share is told from it
SMALLEST_SCALE = 1e-4  # of a tail in which all values are alike


@dataclass(frozen=True)
class Share:
    """The share of benign images at or over a value; `extrapolated` where none of ours was."""

    share: float
    extrapolated: bool


class Percentiles:
    """The survival function of one concept's highest similarity in an image.

    At a sampled value it is the share of images at or over it, and log-linear between them. Over
    the highest one it goes on as an exponential tail, whose scale is the mean excess of the top
    twentieth: the "exponential tail" method of Breiman, Stone and Kooperberg ("Robust confidence
    bounds for extreme upper quantiles", J. Stat. Comput. Simul. 37, 1990). What is promised of a
    policy never rests on the tail: it only says where to look next.
    """

    def __init__(self, maxima: Floats) -> None:
        """Raises ValueError for fewer than two images."""
        if len(maxima) < 2:
            raise ValueError("percentiles need two images at least")
        ordered = np.sort(maxima.astype(np.float64))
        self._values, first = np.unique(ordered, return_index=True)
        self._log_shares = np.log1p(-first / len(ordered))
        tail = min(len(ordered) - 1, max(FEWEST_IN_TAIL, math.ceil(TAIL_SHARE * len(ordered))))
        excess = ordered[-tail:] - ordered[-tail - 1]
        self._scale = max(float(excess.mean()), SMALLEST_SCALE)
        self.mean, self.deviation = float(ordered.mean()), float(ordered.std(ddof=1))

    def share(self, value: float) -> Share:
        """How many benign images are at or over a similarity."""
        beyond = value - self._values[-1]
        if beyond > 0:
            log_share = float(self._log_shares[-1]) - beyond / self._scale
            return Share(max(RAREST, math.exp(log_share)), extrapolated=True)
        log_share = float(np.interp(value, self._values, self._log_shares))
        return Share(math.exp(log_share), extrapolated=False)

    def value(self, share: float) -> float:
        """The similarity that this share of benign images, over 0, reaches."""
        log_share = math.log(share)
        below = float(self._log_shares[-1]) - log_share
        if below > 0:
            return float(self._values[-1]) + below * self._scale
        falling: npt.NDArray[np.float64] = -self._log_shares
        return float(np.interp(-log_share, falling, self._values))


def percentiles_by_concept(names: Sequence[str], sample: Sample) -> dict[str, Percentiles]:
    """The percentiles of each concept, in the order of the similarities."""
    columns = zip(names, sample.maxima.T, strict=True)
    return {name: Percentiles(column) for name, column in columns}
