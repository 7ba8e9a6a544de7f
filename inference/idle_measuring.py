"""Batches measured again while nothing else is to be done, in steps that keep nobody waiting.

The times of a first start, or of one beside other work, would stay otherwise: with a build on the
machine, the best batch was once measured as 1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inference.batch_times import BatchTimes, calmer
from inference.warm_up import Batches, rates, round_seconds

_ROUNDS = 5  # of all sizes: what disturbs some of them does not disturb all
_AGREE = 1.15  # times as long took the second fastest round, at most, if nothing disturbed it
_LONGEST_STEP = 0.25  # seconds of the device that an upload may have to wait for
_SILENCE = 20.0  # times as long as a step nothing came before it
_LOOKS = 8  # in the time that has to be quiet

log = logging.getLogger("inference")


class Images(Protocol):
    """The images in the service, from the end of their header to their answer."""

    @property
    def images(self) -> int:
        """Their number."""

    @property
    def moves(self) -> int:
        """The number of times that one came or went so far."""


@dataclass(frozen=True)
class Pauses:
    """Seconds: without an image before each step, and from one measurement to the next one.

    There is a next one while rounds differ, which means that something disturbs them.
    """

    quiet: float = 2.0
    between: tuple[float, ...] = (60.0, 600.0, 3600.0)


class IdleMeasuring:
    """One measurement after the other, until one was not disturbed."""

    def __init__(self, batches: Batches, images: Images, pauses: Pauses) -> None:
        self._batches = batches
        self._images = images
        self._pauses = pauses
        self._moves = images.moves
        self._since = asyncio.get_running_loop().time()

    async def run(
        self, times: dict[int, float], replace: Callable[[dict[int, float]], None]
    ) -> None:
        """Measure, and give `replace` what is better than `times`. Raises what the encoder does."""
        for pause in (*self._pauses.between, None):
            rounds = await self._rounds(times)
            times = calmer(times, _fastest(rounds))
            log.info("images a second by batch, measured again when idle: %s", rates(times))
            replace(times)
            if pause is None or all(_agree(seconds) for seconds in rounds.values()):
                return
            log.info("something disturbs that: it is done again in %g s", pause)
            await asyncio.sleep(pause)

    async def _rounds(self, expected: dict[int, float]) -> dict[int, list[float]]:
        """The seconds of a batch in each round, by size."""
        rounds: dict[int, list[float]] = {}
        overlap, estimate = self._batches.overlap, BatchTimes(expected)
        for size in self._batches.sizes():
            if rounds:
                estimate = BatchTimes(_fastest(rounds))
                too_long = estimate(size) * overlap > _LONGEST_STEP
                if too_long or not self._batches.pays(_fastest(rounds)):
                    break
            # What happens only the first time is not measured.
            await self._step(size, estimate(size), 1)
            rounds[size] = [await self._step(size, estimate(size), overlap)]
        for _ in range(1, _ROUNDS):
            await asyncio.sleep(self._pauses.quiet)
            for size, seconds in rounds.items():
                seconds.append(await self._step(size, min(seconds), overlap))
        return rounds

    async def _step(self, size: int, expected: float, overlap: int) -> float:
        """The seconds of a batch while nothing else was to be done."""
        batch = [self._batches.picture] * size
        longest = min(expected * overlap, _LONGEST_STEP)
        while True:
            await self._silence(max(self._pauses.quiet, _SILENCE * longest))
            seconds = await round_seconds(
                self._batches.encode, batch, overlap, lambda: self._images.moves == self._moves
            )
            if self._images.moves == self._moves:
                return seconds or expected  # 0: one lane was done before the other began

    async def _silence(self, seconds: float) -> None:
        """Return when no image was there for so long."""
        now = asyncio.get_running_loop().time
        while True:
            if self._images.images or self._images.moves != self._moves:
                self._moves, self._since = self._images.moves, now()
            left = self._since + seconds - now()
            if left <= 0:
                return
            await asyncio.sleep(min(left, self._pauses.quiet / _LOOKS))


def _fastest(rounds: dict[int, list[float]]) -> dict[int, float]:
    return {size: min(seconds) for size, seconds in rounds.items()}


def _agree(seconds: list[float]) -> bool:
    """True if the fastest round was not an accident."""
    first, second, *_ = sorted(seconds)
    return second <= _AGREE * first
