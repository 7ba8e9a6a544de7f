"""Makes batches of what concurrent callers submit.

Work-conserving: a free device takes at once what is queued, and batches grow because work
arrives while it is busy. What to take next is the decision of `inference.work_queue`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from inference.work_queue import Priority, WorkQueue

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("inference")


class DeadlinePassedError(Exception):
    """The deadline passed while the item was queued."""


class Batcher(Generic[T, R]):
    """Runs `run_batch` on what was submitted, one batch at a time."""

    def __init__(
        self,
        run_batch: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int,
        max_queue: int,
    ) -> None:
        self._run_batch = run_batch
        self._max_batch = max_batch
        self._queue: WorkQueue[tuple[T, asyncio.Future[R]]] = WorkQueue(max_queue)
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to take work."""
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def close(self) -> None:
        """Stops taking work; what is queued is never answered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def submit(self, item: T, *, priority: Priority, deadline: float) -> R:
        """The result for one item; `deadline` is a time of the event loop.

        A cancelled caller's item leaves the queue. Raises QueueFullError, DeadlinePassedError and
        what `run_batch` raises.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        ticket = self._queue.add((item, future), priority, deadline)
        self._has_work.set()
        try:
            return await future
        finally:
            self._queue.remove(ticket)

    async def _run(self) -> None:
        while True:
            await self._has_work.wait()
            taken = self._queue.take(asyncio.get_running_loop().time(), self._max_batch)
            for _, (_, future) in taken.late:
                _fail(future, DeadlinePassedError())
            if not taken.batch:
                self._has_work.clear()
                continue
            await self._answer([entry for _, entry in taken.batch])

    async def _answer(self, entries: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run_batch([item for item, _ in entries])
        except Exception as error:
            log.exception("a batch of %d failed", len(entries))
            for _, future in entries:
                _fail(future, error)
            return
        for (_, future), result in zip(entries, results, strict=True):
            if not future.done():
                future.set_result(result)


def _fail(future: asyncio.Future[R], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
