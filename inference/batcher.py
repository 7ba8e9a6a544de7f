"""Runs the batches that `inference.batch_schedule` decides on, and answers who waits for them.

Work-conserving: a free device takes at once what is queued, and batches grow because work
arrives while it is busy.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inference.batch_schedule import (
    Batch,
    DeadlineUnmeetableError,
    Schedule,
    TooMuchAheadError,
)
from inference.device_health import DeviceHealth
from inference.encoder import Embeddings
from inference.metrics import Metrics
from inference.work_queue import Priority, QueueFullError
from telemetry.tracing import Span, add_past_span, mark_failed, recorded_span, shared_span

log = logging.getLogger("inference")


class EncoderFailedError(Exception):
    """The model fails on this image, also when it is encoded alone."""


@dataclass
class _Caller:
    pictures: Sequence[bytes]
    rows: list[Embeddings | None]
    future: asyncio.Future[Embeddings]
    priority: Priority
    came: float
    span: Span | None  # that its batches are told in, if it is traced
    began: float | None = None  # when its first batch did


class Batcher:
    """Encodes the pictures of concurrent callers in batches."""

    def __init__(
        self,
        encode: Callable[[Sequence[bytes]], Awaitable[Embeddings]],
        schedule: Schedule,
        device: DeviceHealth,
        metrics: Metrics | None = None,
    ) -> None:
        """`device` is told of every image that was encoded or could not be."""
        self._metrics = metrics or Metrics()
        self._encode = encode
        self._schedule = schedule
        self._device = device
        self._callers: dict[int, _Caller] = {}
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._step: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    async def close(self) -> None:
        """Stops taking work; what is queued is never answered."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def submit(
        self, pictures: Sequence[bytes], *, priority: Priority, deadline: float, client: str = ""
    ) -> Embeddings:
        """The embeddings (N, D) of one image's views; `deadline` is a time of the event loop.

        Where the queue is full, an upload is refused, and bulk work waits: to be refused would be
        to be decoded again, and nobody waits for it. A cancelled caller's views leave the queue.
        Raises QueueFullError, DeadlineUnmeetableError and EncoderFailedError.
        """
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            try:
                ticket = self._schedule.add(
                    len(pictures), priority=priority, deadline=deadline, client=client, now=now
                )
                break
            except QueueFullError as error:
                if priority is not Priority.BULK or isinstance(error, TooMuchAheadError):
                    raise
            await self._room(deadline)
        future: asyncio.Future[Embeddings] = loop.create_future()
        rows: list[Embeddings | None] = [None] * len(pictures)
        self._callers[ticket] = _Caller(pictures, rows, future, priority, now, recorded_span())
        self._metrics.device_queue.enter(ticket, priority, now)
        # Not at once: what else arrives in this turn of the loop goes into the same batch.
        self._look()
        try:
            return await future
        finally:
            del self._callers[ticket]
            self._metrics.device_queue.leave(ticket, priority)
            self._schedule.remove(ticket)
            self._tell_of_room()

    async def _room(self, deadline: float) -> None:
        """Waits until something has left the queue. Raises DeadlineUnmeetableError."""
        left = asyncio.get_running_loop().create_future()
        self._waiting_for_room.append(left)
        try:
            async with asyncio.timeout_at(None if math.isinf(deadline) else deadline):
                await left
        except TimeoutError:
            raise DeadlineUnmeetableError from None

    def _tell_of_room(self) -> None:
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for left in waiting:
            if not left.done():
                left.set_result(None)

    @property
    def waiting(self) -> int:
        """How many images are not answered yet."""
        return len(self._callers)

    def wait(self, views: int, *, priority: Priority, deadline: float, client: str = "") -> float:
        """Seconds until so many views would be encoded, if they were submitted now."""
        return self._schedule.wait(
            views,
            priority=priority,
            deadline=deadline,
            client=client,
            now=asyncio.get_running_loop().time(),
        )

    def is_late(self, needed: float, left: float) -> bool:
        """Whether an image that needs so many seconds, by estimate, should not be taken in."""
        return self._schedule.is_late(needed, left)

    def backlog(self, views: int) -> float:
        """Seconds of work that the device has, if `views` more come."""
        return self._schedule.backlog(asyncio.get_running_loop().time(), views)

    def _look(self) -> None:
        if self._step is None and not self._closed:
            self._step = asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Does what the schedule says, until it has nothing more to do now."""
        loop = asyncio.get_running_loop()
        self._step = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while not self._closed:
            step = self._schedule.next(loop.time())
            for ticket in step.refused:
                self._fail(ticket, DeadlineUnmeetableError())
            if step.batch is None:
                if step.wake_at is not None:
                    self._alarm = loop.call_at(step.wake_at, self._look)
                return
            self._tell_of_room()
            made = self._note_begin(step.batch, loop.time())
            task = loop.create_task(self._run(step.batch, self._pictures(step.batch), made))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _note_begin(self, batch: Batch, now: float) -> Span | None:
        """Tells what has waited for the batch; the span of its forward pass, if one is wanted."""
        tickets = dict.fromkeys(part.ticket for part in batch.parts)
        callers = {ticket: self._callers[ticket] for ticket in tickets if ticket in self._callers}
        waits: dict[Priority, float] = {}
        for ticket, caller in callers.items():
            if caller.began is None:
                caller.began = now
                self._metrics.device_queue.leave(ticket, caller.priority)
                waited = now - caller.came
                waits[caller.priority] = max(waited, waits.get(caller.priority, 0.0))
                self._metrics.observe_stage("queue_wait", waited)
                add_past_span("queue", caller.span, waited)
        for priority, waited in waits.items():
            self._metrics.observe_batch_wait(priority, waited)
        self._metrics.batch_views.observe(len(batch.parts))
        made = shared_span("batch", (caller.span for caller in callers.values()))
        if made is not None:
            made.set_attribute("imagesafety.batch_views", len(batch.parts))
        return made

    def _pictures(self, batch: Batch) -> dict[int, bytes]:
        """The pictures of a batch by their places in it, but for those that can't be read.

        To be called with the batch's callers still there.
        """
        pictures = {}
        for place, part in enumerate(batch.parts):
            try:
                pictures[place] = self._callers[part.ticket].pictures[part.index]
            except Exception:  # a decoder that was taken over may take back what it wrote
                log.exception("a view can't be read")
        return pictures

    async def _run(self, batch: Batch, pictures: dict[int, bytes], made: Span | None) -> None:
        rows: dict[int, Embeddings] = {}
        begun = time.monotonic()
        try:
            embeddings = await self._encode(list(pictures.values())) if pictures else ()
            if len(embeddings) != len(pictures):
                raise ValueError(f"{len(pictures)} pictures gave {len(embeddings)} embeddings")
            rows = {
                place: row
                for place, row in zip(pictures, embeddings, strict=True)
                if np.isfinite(row).all()
            }
        except Exception as error:
            log.exception("a batch of %d failed", len(batch.parts))
            if made is not None:
                mark_failed(made, error)
        finally:
            if made is not None:
                made.end()
        self._metrics.batch_seconds.observe(time.monotonic() - begun)
        self._answer(batch, rows)

    def _answer(self, batch: Batch, rows: dict[int, Embeddings]) -> None:
        """Gives callers the rows (D,) that there are, by their places in the batch."""
        for place, row in rows.items():
            part = batch.parts[place]
            if part.ticket in self._callers:
                self._callers[part.ticket].rows[part.index] = row
        failed = [place for place in range(len(batch.parts)) if place not in rows]
        now = asyncio.get_running_loop().time()
        outcome = self._schedule.finished(batch.number, now, failed)
        for ticket in outcome.completed:
            self._device.succeeded()
            caller = self._callers[ticket]
            self._metrics.observe_stage("encode", now - (caller.began or now))
            if not caller.future.done():
                caller.future.set_result(np.stack([row for row in caller.rows if row is not None]))
        for ticket in outcome.failed:
            self._device.failed()
            self._fail(ticket, EncoderFailedError())
        self._advance()

    def _fail(self, ticket: int, error: Exception) -> None:
        caller = self._callers.get(ticket)
        if caller is not None and not caller.future.done():
            caller.future.set_exception(error)
