"""How fast towers are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from inference.backends.tower import Picture

BATCHES = (1, 4, 16)
LONGEST = 2.0
"""Seconds that a batch may take the first tower; larger batches are not measured."""

_PATIENCE = 1.0
_SMALLEST = 4  # pictures in one reading of the clock

Clock = Callable[[], float]


class _Encoder(Protocol):
    def encode(self, pictures: Sequence[Picture]) -> object: ...


class Stopwatch:
    """Measures towers, several in turns: a machine that slows down in between is fair to all."""

    def __init__(
        self, first: _Encoder, pictures: Sequence[Picture], clock: Clock = time.perf_counter
    ) -> None:
        """Finds out with one tower which batches can be measured; pictures may be repeated."""
        self._pictures = (list(pictures) * max(BATCHES))[: max(BATCHES)]
        self._clock = clock
        first.encode(self._pictures[:1])
        alone = min(self._seconds(first, 1) for _ in range(3))  # the machine may be busy just now
        self.sizes = tuple(size for size in BATCHES if size == 1 or size * alone <= LONGEST)

    def rates(self, towers: Sequence[_Encoder], rounds: int) -> list[dict[int, float]]:
        """Images a second of each tower, by batch size: medians of `rounds`."""
        seconds: list[dict[int, list[float]]] = [{size: [] for size in self.sizes} for _ in towers]
        for tower in towers:
            for size in self.sizes:
                tower.encode(self._pictures[:size])
        for _ in range(rounds):
            for size in self.sizes:
                for tower, measured in zip(towers, seconds, strict=True):
                    measured[size].append(self._seconds(tower, size))
        return [
            {size: size / statistics.median(times) for size, times in measured.items()}
            for measured in seconds
        ]

    def _seconds(self, tower: _Encoder, size: int) -> float:
        calls = max(1, _SMALLEST // size)
        start = self._clock()
        for _ in range(calls):
            tower.encode(self._pictures[:size])
        return (self._clock() - start) / calls


def takes_at_most(
    limit: float, tower: _Encoder, picture: Picture, clock: Clock = time.perf_counter
) -> bool:
    """Whether a picture can be had in `limit` seconds, alone or in a small batch.

    A first look, that takes no time with a small model. On a busy machine it is repeated for a
    second, since what is slow once may still be a small model.
    """
    tower.encode([picture])
    begin = clock()
    while True:
        for size in (1, 8):
            start = clock()
            tower.encode([picture] * size)
            if clock() - start <= limit * size:
                return True
        if clock() - begin > _PATIENCE:
            return False
