"""Tells what is stuck from what is busy: a forward pass, or the event loop, not coming back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from inference.serving_status import Trouble

_OF_THE_LARGEST = 20.0  # batches: so long that no busy machine takes it
_LOOKS = 20.0  # in the time that a pass may take
_SECONDS = 1.0  # between looks, at most

log = logging.getLogger("inference")


def wedged_after(wedged_seconds: float, largest_batch: float) -> float:
    """After how many seconds a pass counts as stuck; `largest_batch` was measured, in seconds."""
    return max(wedged_seconds, _OF_THE_LARGEST * largest_batch)


class WedgeWatch:
    """Announces when a pass takes longer than `limit` seconds, and when it comes back after all.

    Nothing is announced while the event loop is stuck itself: `objection` tells that.
    """

    def __init__(
        self,
        running_for: Callable[[], float],
        limit: float,
        announce: Callable[[bool], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`running_for` is for how long the oldest pass runs, in seconds; 0 if there is none.

        It and the clock are asked from any thread.
        """
        self._clock = clock
        self._looked_at = clock()
        self._running_for = running_for
        self._limit = limit
        self._announce = announce
        self._task: asyncio.Task[None] | None = None

    def allow(self, limit: float) -> None:
        """Change the seconds after which a pass counts as stuck."""
        self._limit = limit

    def start(self) -> None:
        """Begins to look."""
        self._looked_at = self._clock()
        self._task = asyncio.create_task(self._look())

    def objection(self, loop_seconds: float | None = None) -> str | None:
        """The part that is stuck, if any; may be asked from any thread.

        The event loop is when it has not looked for `loop_seconds` (as long as a pass may take, if
        they are not given).
        """
        if self._running_for() >= self._limit:
            return Trouble.DEVICE_STUCK.value
        silent = self._clock() - self._looked_at
        if silent >= (self._limit if loop_seconds is None else loop_seconds):
            return f"the event loop has not come back for {silent:.0f} s"
        return None

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        stuck = False
        while True:
            await asyncio.sleep(min(_SECONDS, self._limit / _LOOKS))
            self._looked_at = self._clock()
            seconds = self._running_for()
            if stuck == (seconds >= self._limit):
                continue
            stuck = not stuck
            if stuck:
                log.error("the device did not come back for %.0f s: not serving", seconds)
            else:
                log.warning("the device came back")
            await self._announce(stuck)
