"""Labelled images with similarities and embeddings, as better scores are learned from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from imagesafety.calibration.sample import Booleans, Floats, Indices, Sample
from imagesafety.evaluation.collected import NO

Labels = npt.NDArray[np.int8]


class Part(IntEnum):
    """What an image is for."""

    TRAIN = 0
    COMPARE = 1
    THRESHOLDS = 2


# Of images that are to be accepted, most are left for thresholds: those take thousands. Of the
# other ones there are few, and no promise is made of them.
_SHARES_OF_ACCEPTED = (0.3, 0.6)
_SHARES = (0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Different images. `embeddings` (V, D) has a row for each view, of length 1.

    `sample` has the similarities that were asked for. `rejects` (N,) says of the images whether
    they are to be rejected, `shows` (N, C) which of the policy's concepts they show: 1, 0, or -1
    where nobody said.
    """

    sample: Sample
    embeddings: Floats
    rejects: Labels
    shows: Labels

    @cached_property
    def parts(self) -> Indices:
        """What each image is for: by its hash, alike in every run, and alike for all labels."""
        result = np.empty(len(self.sample), np.int64)
        labels = np.column_stack([self.rejects, self.shows])
        numbers = (int.from_bytes(hash_[16:24], "big") for hash_ in self.sample.hashes)
        ranks = np.fromiter(numbers, np.uint64, len(self.sample))
        _, strata = np.unique(labels, axis=0, return_inverse=True)
        strata = strata.reshape(-1)
        order = np.lexsort((ranks, strata))
        starts = np.flatnonzero(np.diff(strata[order], prepend=-1))
        for members in np.split(order, starts[1:]):
            # Of one image alone, its hash decides.
            offset = int(ranks[members].sum() % 2**16) / 2**16 if len(members) else 0.0
            places = (np.arange(len(members)) + offset) / max(len(members), 1)
            accepted = len(members) and self.rejects[members[0]] == NO
            shares = _SHARES_OF_ACCEPTED if accepted else _SHARES
            result[members] = np.searchsorted(shares, places, side="right")
        return result

    def of(self, part: Part) -> Booleans:
        """Which images are for this."""
        chosen: Booleans = self.parts == part
        return chosen

    def digest(self, chosen: Booleans, truth: Labels) -> str:
        """Identifies some of the images and one of their labels."""
        lines = (
            self.sample.hashes[index] + bytes([truth[index] & 1])
            for index in np.flatnonzero(chosen)
        )
        return f"sha256:{hashlib.sha256(b''.join(sorted(lines))).hexdigest()}"


def image_maxima(sample: Sample, views: npt.NDArray[np.floating]) -> Floats:
    """The greatest of each image's views' numbers."""
    if not len(sample):
        return np.empty(0, np.float32)
    starts = np.searchsorted(sample.image, np.arange(len(sample)))
    found: Floats = np.maximum.reduceat(views, starts)
    return found


def best_views(sample: Sample, views: npt.NDArray[np.floating]) -> Indices:
    """For each image the row of its view with the greatest number."""
    reached = np.flatnonzero(views >= image_maxima(sample, views)[sample.image])
    _, first = np.unique(sample.image[reached], return_index=True)
    found: Indices = reached[first]
    return found
