"""Tries ways to run a model: how close to the reference each is, and how fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from inference.backends.choice import Rates, Trial, refusal
from inference.backends.measurement import Stopwatch
from inference.backends.tower import Embeddings, ImageTower, Picture

CountChanges = Callable[[Embeddings, Embeddings], int]
"""On how many pictures two sets of embeddings lead to different verdicts."""

ROUNDS, ROUNDS_OF_FINAL = 3, 5
_PORTIONS = (1, 3, 8)  # and then eights: a model that knows one batch size only would fail


class Contest:
    """Compares towers with the reference on the calibration pictures."""

    def __init__(
        self, reference: ImageTower, pictures: Sequence[Picture], changes: CountChanges
    ) -> None:
        """Embeds the pictures with the reference."""
        self._reference = reference
        self._pictures = pictures
        self._changes = changes
        self._expected = _embedded(reference, pictures)

    @cached_property
    def _stopwatch(self) -> Stopwatch:
        return Stopwatch(self._reference, self._pictures)

    @property
    def of_reference(self) -> Trial:
        """The reference's own trial."""
        (rates,) = self._stopwatch.rates([self._reference], ROUNDS)
        return Trial(self._reference.spec.name, rates, 1.0)

    def trial(self, tower: ImageTower) -> Trial:
        """Checks a tower, and measures it if it passes. Raises what the tower raises."""
        checked = self.check(tower)
        if checked.refused:
            return checked
        (rates,) = self._stopwatch.rates([tower], ROUNDS)
        return replace(checked, rates=rates)

    def final(self, towers: Sequence[ImageTower]) -> dict[str, Rates]:
        """The rates of several towers by name, measured in turns."""
        rates = self._stopwatch.rates(towers, ROUNDS_OF_FINAL)
        return {tower.spec.name: each for tower, each in zip(towers, rates, strict=True)}

    def check(self, tower: ImageTower) -> Trial:
        """A trial without rates."""
        embeddings = _embedded(tower, self._pictures)
        cosine = float(np.min(np.sum(embeddings * self._expected, axis=1)))
        changed = self._changes(self._expected, embeddings)
        return Trial(tower.spec.name, {}, cosine, refusal(tower.spec.precision, cosine, changed))


def _embedded(tower: ImageTower, pictures: Sequence[Picture]) -> Embeddings:
    parts: list[Embeddings] = []
    start = 0
    while start < len(pictures):
        size = _PORTIONS[min(len(parts), len(_PORTIONS) - 1)]
        parts.append(tower.encode(pictures[start : start + size]))
        start += size
    return np.concatenate(parts)
