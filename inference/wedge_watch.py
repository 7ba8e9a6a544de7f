"""Tells a device that is stuck from one that is busy: a forward pass that does not come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_OF_THE_LARGEST = 20.0  # batches: so long that no busy machine takes it
_LOOKS = 20.0  # in the time that a pass may take
_SECONDS = 1.0  # between looks, at most

log = logging.getLogger("inference")


def wedged_after(wedged_seconds: float, largest_batch: float) -> float:
    """After how many seconds a pass counts as stuck; `largest_batch` was measured, in seconds."""
    return max(wedged_seconds, _OF_THE_LARGEST * largest_batch)


class WedgeWatch:
    """Announces when a pass takes longer than `limit` seconds, and when it comes back after all."""

    def __init__(
        self,
        running_for: Callable[[], float],
        limit: float,
        announce: Callable[[bool], Awaitable[None]],
    ) -> None:
        """`running_for` is for how long the oldest pass runs, in seconds; 0 if there is none."""
        self._running_for = running_for
        self._limit = limit
        self._announce = announce
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        stuck = False
        while True:
            await asyncio.sleep(min(_SECONDS, self._limit / _LOOKS))
            seconds = self._running_for()
            if stuck == (seconds >= self._limit):
                continue
            stuck = not stuck
            if stuck:
                log.error("the device did not come back for %.0f s: not serving", seconds)
            else:
                log.warning("the device came back")
            await self._announce(stuck)
