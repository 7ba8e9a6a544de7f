"""Chooses the frames of an animation or video that are encoded, while they go by.

Plain code, without pictures: it sees each frame's thumbnail once, in order, says whether to keep
the frame and which kept ones to let go, and in the end which of the kept ones to use.

Of at most `max_frames` frames, the first and the last are always among them. A quarter is drawn at
random, every frame with the same chance, so that nobody can arrange frames to be passed over for
certain. The others are those that differ most from each other: of two frames that are alike, the
later one is let go (the greedy choice of Gonzalez, "Clustering to minimize the maximum intercluster
distance", 1985, on a stream). A frame that shows the same as a chosen one is not used again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from inference.decoder.reduction import Thumbnail, show_the_same

RANDOM_SHARE = 4  # one in four
_REMEMBERED = 32  # of the frames kept last, where all that differ are kept


@dataclass(frozen=True)
class Choice:
    """What to do with a frame: keep it or not, and let these go."""

    keep: bool
    drop: tuple[int, ...] = ()


class AllFrames:
    """Keeps every frame but those that show the same as one of the last 32 that were kept."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._recent: list[Thumbnail] = []

    def offer(self, index: int, thumbnail: Thumbnail) -> Choice:
        """Takes note of the next frame."""
        if any(show_the_same(thumbnail, other) for other in self._recent):
            return Choice(keep=False)
        self._kept.append(index)
        self._recent = [*self._recent[1 - _REMEMBERED :], thumbnail]
        return Choice(keep=True)

    def chosen(self, last: int, thumbnail: Thumbnail) -> list[int]:
        """The frames to use; `last` is the last one that was offered."""
        return self._kept


class FrameChooser:
    """Keeps at most a bounded number of frames, whatever the length of the file."""

    def __init__(self, max_frames: int, rng: random.Random) -> None:
        """`max_frames` is 1 or more; with 1 only the first frame is used."""
        self._max_frames = max_frames
        self._rng = rng
        self._middle = max(0, max_frames - 2)
        self._offered = 0
        self._thumbnails: dict[int, Thumbnail] = {}  # of all kept frames
        self._drawn: list[int | None] = [None] * (self._middle // RANDOM_SHARE)
        self._different: list[int] = []
        self._distances: dict[tuple[int, int], float] = {}

    def offer(self, index: int, thumbnail: Thumbnail) -> Choice:
        """Takes note of the next frame."""
        self._offered += 1
        before = set(self._thumbnails)
        if self._offered == 1:
            self._thumbnails[index] = thumbnail
            self._different = [index]
            return Choice(keep=True)
        wanted = self._draw(index)
        wanted |= self._compare(index, thumbnail)
        if wanted:
            self._thumbnails[index] = thumbnail
        needed = {*self._different, *(kept for kept in self._drawn if kept is not None)}
        drop = tuple(sorted(before - needed))
        for other in drop:
            del self._thumbnails[other]
        return Choice(wanted, drop)

    def chosen(self, last: int, thumbnail: Thumbnail) -> list[int]:
        """The frames to use, in order; `last` is the last one that was offered."""
        first = self._different[0]
        self._thumbnails[last] = thumbnail
        result = [first]
        drawn = sorted(index for index in self._drawn if index is not None)
        for index in (last, *drawn):
            if len(result) < self._max_frames and self._is_new(index, result):
                result.append(index)
        rest = [index for index in self._different if index not in result]
        while rest and len(result) < self._max_frames:
            farthest = max(rest, key=lambda index: self._nearest(index, result))
            rest.remove(farthest)
            if self._is_new(farthest, result):
                result.append(farthest)
        return sorted(result)

    def _draw(self, index: int) -> bool:
        """Vitter's reservoir, algorithm R: of n frames, each is in it with the same chance."""
        if not self._drawn:
            return False
        place = self._offered - 2  # the first frame is used in any case
        if place >= len(self._drawn):
            place = self._rng.randrange(place + 1)
        if place >= len(self._drawn):
            return False
        self._drawn[place] = index
        return True

    def _compare(self, index: int, thumbnail: Thumbnail) -> bool:
        """Whether the frame is one of those that differ most; the first is always one."""
        kept = [self._thumbnails[other] for other in self._different]
        if any(show_the_same(thumbnail, other) for other in kept):
            return False
        distances = [_distance(thumbnail, other) for other in kept]
        if len(self._different) > self._middle:
            closest = min(self._distances, key=self._distances.__getitem__, default=None)
            if closest is None or min(distances) <= self._distances[closest]:
                return False
            self._forget(closest[1])
            distances = [_distance(thumbnail, self._thumbnails[other]) for other in self._different]
        for other, distance in zip(self._different, distances, strict=True):
            self._distances[other, index] = distance
        self._different.append(index)
        return True

    def _forget(self, index: int) -> None:
        self._different.remove(index)
        self._distances = {
            pair: distance for pair, distance in self._distances.items() if index not in pair
        }

    def _is_new(self, index: int, others: list[int]) -> bool:
        thumbnail = self._thumbnails[index]
        return not any(show_the_same(thumbnail, self._thumbnails[other]) for other in others)

    def _nearest(self, index: int, others: list[int]) -> float:
        thumbnail = self._thumbnails[index]
        return min(_distance(thumbnail, self._thumbnails[other]) for other in others)


def _distance(one: Thumbnail, other: Thumbnail) -> float:
    """The mean difference of two thumbnails; those of frames with and without alpha are far."""
    return float(np.abs(one - other).mean()) if one.shape == other.shape else 255.0
