"""Scored images as arrays: the similarities of every view, and whose view it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

MAP_ONE_IN = 5


@dataclass(frozen=True, eq=False)
class Sample:
    """Different images. `similarities` has a row per view; `image` says whose, never falling.

    `hashes` has each image's SHA-256, `partial` is true of those of which only a part could be
    looked at (without it, of none). Every image has a view at least.
    """

    similarities: Floats
    image: Indices
    hashes: tuple[bytes, ...]
    partial: Booleans = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if not len(self.partial):
            object.__setattr__(self, "partial", np.zeros(len(self.hashes), bool))
        if not np.isfinite(self.similarities).all():
            raise ValueError("a similarity is not a finite number")
        if len(np.unique(self.image)) != len(self.hashes):
            raise ValueError("an image without views")

    def __len__(self) -> int:
        return len(self.hashes)

    @cached_property
    def maxima(self) -> Floats:
        """Each image's highest similarity to each concept."""
        if not len(self):
            return self.similarities
        starts = np.searchsorted(self.image, np.arange(len(self)))
        highest: Floats = np.maximum.reduceat(self.similarities, starts, axis=0)
        return highest

    def part(self, chosen: Booleans) -> Sample:
        """The images for which `chosen` is true."""
        views = chosen[self.image]
        places = np.cumsum(chosen) - 1
        hashes = tuple(hash_ for hash_, keep in zip(self.hashes, chosen, strict=True) if keep)
        return Sample(
            self.similarities[views], places[self.image[views]], hashes, self.partial[chosen]
        )

    def split_for_map(self) -> tuple[Sample, Sample]:
        """A fifth of the images, from which percentiles are learned, and the other ones.

        Those with the lowest hashes, whatever their names or their order. Not one in five by
        chance: then nobody could say how many images are enough for a promise.
        """
        chosen = self._lowest(0, len(self) // MAP_ONE_IN)
        return self.part(chosen), self.part(~chosen)

    def halves(self) -> tuple[Sample, Sample]:
        """Two halves, by other bits of the hash than `split_for_map` looks at."""
        chosen = self._lowest(8, len(self) // 2)
        return self.part(chosen), self.part(~chosen)

    def _lowest(self, start: int, count: int) -> Booleans:
        """The images that are lowest by eight bytes of their hashes, so many of them."""
        keys = [(hash_[start : start + 8], hash_) for hash_ in self.hashes]
        order = sorted(range(len(self)), key=keys.__getitem__)
        chosen = np.zeros(len(self), bool)
        chosen[order[:count]] = True
        return chosen


@dataclass
class SampleBuilder:
    """Gathers images one after the other; an image that is there already counts once."""

    concepts: int
    _views: list[Floats] = field(default_factory=list)
    _hashes: dict[bytes, bool] = field(default_factory=dict)  # and whether it is partial

    def __contains__(self, sha256: bytes) -> bool:
        return sha256 in self._hashes

    def add(self, sha256: bytes, similarities: Floats, *, partial: bool = False) -> bool:
        """Adds an image's views; whether it is new. Raises ValueError for other than (V, C)."""
        if sha256 in self._hashes:
            return False
        if similarities.ndim != 2 or not len(similarities):
            raise ValueError("no views")
        if similarities.shape[1] != self.concepts:
            raise ValueError(f"{similarities.shape[1]} similarities, {self.concepts} concepts")
        self._hashes[sha256] = partial
        self._views.append(similarities.astype(np.float32, copy=False))
        return True

    def build(self) -> Sample:
        """The images so far. Raises ValueError if a similarity is not a finite number."""
        counts = [len(views) for views in self._views]
        nothing = np.empty((0, self.concepts), np.float32)
        return Sample(
            np.concatenate([nothing, *self._views]),
            np.repeat(np.arange(len(counts)), counts),
            tuple(self._hashes),
            np.fromiter(self._hashes.values(), bool, len(self._hashes)),
        )

    @classmethod
    def of(cls, concepts: int, images: Sequence[tuple[bytes, Floats]]) -> Self:
        """A builder that has these images."""
        builder = cls(concepts)
        for sha256, similarities in images:
            builder.add(sha256, similarities)
        return builder
