"""A device with a simulated clock behind the schedule, and the record of what happened."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inference.batch_schedule import (
    Batch,
    DeadlineUnmeetableError,
    Outcome,
    Schedule,
    ScheduleLimits,
)
from inference.batch_times import BatchTimes
from inference.work_queue import Priority, QueueFullError


@dataclass(frozen=True)
class Arrival:
    """One image: when it comes, what it wants, and when its caller goes away."""

    at: float
    views: int = 1
    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf
    client: str = ""
    gone: float = math.inf
    poisoned: tuple[int, ...] = ()  # views that the encoder fails on
    insists: bool = False  # is taken in, also if it is expected to be late


@dataclass(frozen=True)
class Ran:
    """A batch that the device ran; `parts` are (image, view) by the order of arrival."""

    began: float
    ended: float
    parts: tuple[tuple[int, int], ...]
    waiting: tuple[int, ...]  # images that were left in the queue


@dataclass
class Record:
    """What happened; each image has one end at most."""

    batches: list[Ran] = field(default_factory=list)
    ends: dict[int, tuple[str, float]] = field(default_factory=dict)
    most_waiting: int = 0

    def done(self) -> set[int]:
        """The images that were encoded."""
        return {image for image, (end, _) in self.ends.items() if end == "done"}


class Simulation:
    """Runs arrivals through a schedule, on a device that takes `seconds(size)` for a batch."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        limits: ScheduleLimits,
        seconds: Callable[[int], float],
        estimated: BatchTimes | None = None,
    ) -> None:
        self.arrivals = arrivals
        self.limits = limits
        self._seconds = seconds
        sizes = range(1, limits.max_batch + 1)
        times = estimated or BatchTimes({size: seconds(size) for size in sizes})
        self._schedule = Schedule(times, limits)
        self._images: dict[int, int] = {}  # by ticket
        self._taken: Counter[int] = Counter()
        self._free_at = 0.0
        self._pushed = 0
        self._events: list[tuple[float, int, str, object]] = []
        self.record = Record()

    def run(self) -> Record:
        """The record, when nothing moves any more."""
        for image, arrival in enumerate(self.arrivals):
            self._push(arrival.at, "arrival", image)
        while self._events:
            now, _, kind, what = heapq.heappop(self._events)
            if kind == "arrival":
                self._arrive(what, now)  # type: ignore[arg-type]
            elif kind == "gone":
                self._leave(what)  # type: ignore[arg-type]
            elif kind == "batch":
                self._finish(what, now)  # type: ignore[arg-type]
            # As the batcher does: what happens at the same time is known before the next batch.
            if not self._events or self._events[0][0] > now:
                self._advance(now)
        return self.record

    def _push(self, at: float, kind: str, what: object = None) -> None:
        self._pushed += 1
        heapq.heappush(self._events, (at, self._pushed, kind, what))

    def _end(self, image: int, end: str, now: float) -> None:
        assert image not in self.record.ends, "an image with two ends"
        self.record.ends[image] = (end, now)

    def _arrive(self, image: int, now: float) -> None:
        arrival = self.arrivals[image]
        expects = Schedule.is_late
        if arrival.insists:
            Schedule.is_late = lambda *_: False  # type: ignore[method-assign]
        try:
            ticket = self._schedule.add(
                arrival.views,
                priority=arrival.priority,
                deadline=arrival.deadline,
                client=arrival.client,
                now=now,
            )
        except QueueFullError:
            self._end(image, "full", now)
        except DeadlineUnmeetableError:
            self._end(image, "late", now)
        else:
            self._images[ticket] = image
            if arrival.gone < math.inf:
                self._push(max(now, arrival.gone), "gone", ticket)
        finally:
            Schedule.is_late = expects  # type: ignore[method-assign]

    def _leave(self, ticket: int) -> None:
        self._schedule.remove(ticket)
        if self._images[ticket] not in self.record.ends:
            self._end(self._images[ticket], "gone", 0)

    def _waiting(self) -> tuple[int, ...]:
        return tuple(
            image
            for image in self._images.values()
            if image not in self.record.ends and self._taken[image] < self.arrivals[image].views
        )

    def _advance(self, now: float) -> None:
        while True:
            self.record.most_waiting = max(self.record.most_waiting, len(self._waiting()))
            step = self._schedule.next(now)
            for ticket in step.refused:
                self._end(self._images[ticket], "late", now)
            if step.batch is None:
                if step.wake_at is not None:
                    self._push(step.wake_at, "wake")
                return
            parts = tuple((self._images[part.ticket], part.index) for part in step.batch.parts)
            for image, index in parts:
                self._taken[image] = max(self._taken[image], index + 1)
            began = max(now, self._free_at)
            self._free_at = began + self._seconds(len(parts))
            self.record.batches.append(Ran(began, self._free_at, parts, self._waiting()))
            self._push(self._free_at, "batch", step.batch)

    def _finish(self, batch: Batch, now: float) -> None:
        failed = {
            place
            for place, part in enumerate(batch.parts)
            if part.index in self.arrivals[self._images[part.ticket]].poisoned
        }
        outcome: Outcome = self._schedule.finished(batch.number, now, failed)
        for ticket in outcome.completed:
            self._end(self._images[ticket], "done", now)
        for ticket in outcome.failed:
            self._end(self._images[ticket], "failed", now)
