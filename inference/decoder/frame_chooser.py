"""Chooses the frames of an animation or video that are encoded, while they go by.

Plain code, without pictures: it sees each frame's thumbnail once, in order, says whether to keep
the frame and which kept ones to let go, and in the end which of the kept ones to use.

Of at most `max_frames` frames, the first and the last are always among them. A quarter is drawn at
random, every frame with the same chance, so that nobody can arrange frames to be passed over for
certain. Another quarter is for flashes, which differ from the frame before and the frame after.
The others are those that differ most from each other: of two frames that are alike, the later one
is let go (the greedy choice of Gonzalez, "Clustering to minimize the maximum intercluster
distance", 1985, on a stream). A frame that shows the same as a chosen one is not used again.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from inference.decoder.thumbnails import Thumbnail

SHARE = 4  # one in four is drawn, one in four may be a flash
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
        if any(thumbnail.shows_the_same(other) for other in self._recent):
            return Choice(keep=False)
        self._kept.append(index)
        self._recent = [*self._recent[1 - _REMEMBERED :], thumbnail]
        return Choice(keep=True)

    def chosen(self, last: int, thumbnail: Thumbnail) -> list[int]:
        """The frames to use; `last` is the last one that was offered."""
        return self._kept


class Flashes:
    """The frames that show something else than those before and after them.

    Frames in a row that show the same count as one: a flash may be shown for more than one.
    """

    def __init__(self, most: int) -> None:
        """Keeps the `most` that differ most from both sides."""
        self._most = most
        self._latest: tuple[int, Thumbnail, float] | None = None  # with the difference before it
        self._found: dict[int, float] = {}

    @property
    def kept(self) -> set[int]:
        """The frames that may be used in the end."""
        if self._latest is None or not self._may_enter(self._latest[2]):
            return set(self._found)
        return {*self._found, self._latest[0]}

    def offer(self, index: int, thumbnail: Thumbnail) -> None:
        """Takes note of the next frame."""
        if self._latest is None:
            self._latest = index, thumbnail, 0.0
            return
        latest, shown, before = self._latest
        if thumbnail.shows_the_same(shown):
            return
        after = thumbnail.distance(shown)
        if self._may_enter(before):
            self._found[latest] = min(before, after)
            if len(self._found) > self._most:
                del self._found[min(self._found, key=self._found.__getitem__)]
        self._latest = index, thumbnail, after

    def _may_enter(self, before: float) -> bool:
        """Whether a frame that differs so much from the one before may be one of the most."""
        return len(self._found) < self._most or before > min(self._found.values(), default=math.inf)

    def best(self) -> list[int]:
        """The frames to use, the most striking one first."""
        return sorted(self._found, key=self._found.__getitem__, reverse=True)


class FrameChooser:
    """Keeps at most a bounded number of frames, whatever the length of the file."""

    def __init__(self, max_frames: int, rng: random.Random) -> None:
        """`max_frames` is 1 or more; with 1 only the first frame is used."""
        self._max_frames = max_frames
        self._rng = rng
        self._middle = max(0, max_frames - 2)
        self._offered = 0
        self._thumbnails: dict[int, Thumbnail] = {}  # of all kept frames
        self._drawn: list[int | None] = [None] * (self._middle // SHARE)
        self._flashes = Flashes(self._middle // SHARE)
        self._different: list[int] = []
        self._distances: dict[tuple[int, int], float] = {}

    def offer(self, index: int, thumbnail: Thumbnail) -> Choice:
        """Takes note of the next frame."""
        self._offered += 1
        before = set(self._thumbnails)
        if self._offered == 1:
            self._different = [index]
        else:
            self._draw(index)
            self._compare(index, thumbnail)
        self._flashes.offer(index, thumbnail)
        self._thumbnails[index] = thumbnail
        needed = {*self._different, *self._flashes.kept}
        needed |= {kept for kept in self._drawn if kept is not None}
        for other in self._thumbnails.keys() - needed:
            del self._thumbnails[other]
        return Choice(index in needed, tuple(sorted(before - needed)))

    def chosen(self, last: int, thumbnail: Thumbnail) -> list[int]:
        """The frames to use, in order; `last` is the last one that was offered."""
        self._thumbnails[last] = thumbnail
        drawn = sorted(index for index in self._drawn if index is not None)
        result: list[int] = []
        for index in (self._different[0], last, *drawn, *self._flashes.best()):
            if len(result) < self._max_frames and self._is_new(index, result):
                result.append(index)
        rest = [index for index in self._different if index not in result]
        while rest and len(result) < self._max_frames:
            farthest = max(rest, key=lambda index: self._nearest(index, result))
            rest.remove(farthest)
            if self._is_new(farthest, result):
                result.append(farthest)
        return sorted(result)

    def _draw(self, index: int) -> None:
        """Vitter's reservoir, algorithm R: of n frames, each is in it with the same chance."""
        place = self._offered - 2  # the first frame is used in any case
        if place >= len(self._drawn):
            place = self._rng.randrange(place + 1)
        if place < len(self._drawn):
            self._drawn[place] = index

    def _compare(self, index: int, thumbnail: Thumbnail) -> None:
        """Takes the frame in, if it is one of those that differ most; the first always is one."""
        kept = [self._thumbnails[other] for other in self._different]
        if any(thumbnail.shows_the_same(other) for other in kept):
            return
        distances = [thumbnail.distance(other) for other in kept]
        if len(self._different) > self._middle:
            closest = min(self._distances, key=self._distances.__getitem__, default=None)
            if closest is None or min(distances) <= self._distances[closest]:
                return
            place = self._different.index(closest[1])
            del distances[place]
            self._forget(closest[1])
        for other, distance in zip(self._different, distances, strict=True):
            self._distances[other, index] = distance
        self._different.append(index)

    def _forget(self, index: int) -> None:
        self._different.remove(index)
        self._distances = {
            pair: distance for pair, distance in self._distances.items() if index not in pair
        }

    def _is_new(self, index: int, others: list[int]) -> bool:
        thumbnail = self._thumbnails[index]
        return not any(thumbnail.shows_the_same(self._thumbnails[other]) for other in others)

    def _nearest(self, index: int, others: list[int]) -> float:
        thumbnail = self._thumbnails[index]
        return min(thumbnail.distance(self._thumbnails[other]) for other in others)
