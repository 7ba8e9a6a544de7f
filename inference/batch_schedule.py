"""The choice of views for the next batch, as plain code that returns what to do next.

Jobs come in (the views of one image), batches go out, and each method returns what the caller has
to do. Nothing here waits, computes or looks at a clock; `inference.batcher` does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from inference.batch_times import BatchTimes
from inference.work_queue import UPLOADS_COME, Entry, Priority, QueueFullError, WorkQueue

# How much later a view counts as due for each view of its image that was taken before it, in times
# that a view takes: an image of many views lets those by that came shortly after it.
_LATER = 8.0
# How much longer a batch with uploads may take for the bulk work that fills it up.
_PADDED = 1.25
# One place in so many is for uploads: bulk work, which waits for room, would take all.
_KEPT_FREE = 4


class DeadlineUnmeetableError(Exception):
    """The device needs longer for the views than there is until the deadline."""


class TooMuchAheadError(QueueFullError):
    """So much is ahead of the image that it can't be encoded before its deadline."""


@dataclass(frozen=True)
class Part:
    """One view of a job: its index among the job's views."""

    ticket: int
    index: int


@dataclass(frozen=True)
class Batch:
    """Views to encode together."""

    number: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Step:
    """The next step: run a batch, tell jobs that they are refused, look again at a time."""

    batch: Batch | None
    refused: tuple[int, ...] = ()
    wake_at: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Jobs that are over: all of their views are encoded, or one can't be."""

    completed: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass
class _Job:
    views: int
    priority: Priority
    taken: int = 0
    encoded: int = 0


@dataclass(frozen=True)
class _Running:
    batch: Batch
    began: float


@dataclass(frozen=True)
class _Terms:
    """For the next batch: when it can start, and the size that it has at least, if it can."""

    start: float
    least: int


@dataclass(frozen=True)
class ScheduleLimits:
    """Limits that the schedule keeps: sizes in views, the delay in seconds.

    `overlap` is how many batches may be with the device at once; `max_delay` is how long an idle
    device may wait for a batch to fill; `weights` are those of clients by name; `spare` is which
    part of the time until its deadline a new job must leave over, by estimate, if others are ahead
    of it: who is admitted to be done at the last moment is late when anything takes longer.
    `short_batch` is the most that a batch of bulk work takes while uploads come, each of which may
    have to wait for one; 0: as any other.
    """

    max_batch: int
    max_queue: int
    max_delay: float = 0.0
    overlap: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)
    spare: float = 0.0
    short_batch: int = 0


class Schedule:
    """The state between the jobs and the device."""

    def __init__(self, times: BatchTimes, limits: ScheduleLimits) -> None:
        self._times = times
        self._limits = limits
        self._queue: WorkQueue[None] = WorkQueue(limits.max_queue, limits.weights)
        self._jobs: dict[int, _Job] = {}
        self._waiting = dict.fromkeys(Priority, 0)  # views of queued jobs
        self._again: deque[tuple[Part, ...]] = deque()  # of batches that failed
        self._running: dict[int, _Running] = {}
        self._last_end = 0.0
        self._since = 0.0  # when the first of those came who wait for the next batch
        self._last_upload = -math.inf  # when it came
        self._next_number = 0

    def resize(self, max_batch: int, short_batch: int) -> None:
        """Change the two sizes of the limits for the batches that come."""
        self._limits = replace(self._limits, max_batch=max_batch, short_batch=short_batch)

    def add(
        self, views: int, *, priority: Priority, deadline: float, client: str, now: float
    ) -> int:
        """Takes in a job of one or more views and returns its ticket.

        Raises DeadlineUnmeetableError if the device, were it free for this alone, would be late,
        TooMuchAheadError if it would be for what is ahead of it, and QueueFullError if there is no
        room.
        """
        end = self._start(now) + self._alone(views)
        if end > deadline:
            self._doubt(end - now, deadline - now)
            raise DeadlineUnmeetableError
        needed = self.wait(views, priority=priority, deadline=deadline, client=client, now=now)
        if self._queue.waiting(priority) and self.is_late(needed, deadline - now):
            raise TooMuchAheadError("the device has too much to do to encode the image in time")
        # An image takes no more places than a batch has: others can't wait behind more of it.
        places = min(views, self._limits.max_batch)
        kept_free = self._limits.max_queue // _KEPT_FREE if priority is Priority.BULK else 0
        ticket = self._queue.add(None, priority, deadline, client, places, views, kept_free)
        if not any(self._waiting.values()):
            self._since = now
        if priority is Priority.INTERACTIVE:
            self._last_upload = now
        self._jobs[ticket] = _Job(views, priority)
        self._waiting[priority] += views
        return ticket

    def wait(
        self, views: int, *, priority: Priority, deadline: float, client: str, now: float
    ) -> float:
        """Seconds until a job that came now would be encoded, by what was measured."""
        start = self._start(now)
        most = start - now + self._alone(self._queue.waiting(priority) + views)
        if not self.is_late(most, deadline - now):
            return most  # however it is shared out; that is good enough
        each = self._each()
        ahead = self._queue.ahead(
            priority, deadline, client, views, start, each, later=_LATER * each
        )
        return start - now + self._alone(ahead + views)

    def is_late(self, needed: float, left: float) -> bool:
        """True if a job that needs so many seconds, by estimate, should not be taken in.

        To be asked only where others are ahead of it: what they take will correct the estimate.
        """
        return needed > left * (1 - self._limits.spare)

    def backlog(self, now: float, views: int = 0) -> float:
        """Seconds of work that the device has, with what runs, if `views` more come."""
        return self._start(now) - now + self._alone(self._queue.waiting() + views)

    def remove(self, ticket: int) -> None:
        """Forgets a job: nobody waits for it any more."""
        job = self._jobs.pop(ticket, None)
        if job is not None and self._queue.remove(ticket):
            self._waiting[job.priority] -= job.views - job.taken

    def next(self, now: float) -> Step:
        """The next step, if the device may be free. To be called again after every batch given."""
        if len(self._running) >= self._limits.overlap:
            return Step(None)
        while self._again:
            parts = tuple(part for part in self._again.popleft() if part.ticket in self._jobs)
            if parts:
                return Step(self._begin(parts, now))
        refused: list[int] = []
        terms = self._terms(now)
        first = self._first(terms, refused)
        if first is None:
            return Step(None, tuple(refused))
        latest = first.deadline - self._needed(first, terms)
        wake_at = min(self._since + self._limits.max_delay, latest)
        waiting = sum(self._waiting.values())
        if now < wake_at and not self._running and waiting < self._limits.max_batch:
            return Step(None, tuple(refused), wake_at)
        parts = self._fill(terms, refused, self._most(first.priority, now))
        return Step(self._begin(parts, now), tuple(refused))

    def finished(self, number: int, now: float, failed: Collection[int] = ()) -> Outcome:
        """A batch is back; `failed` are the places in it whose views could not be encoded.

        They are tried again in halves, until it is known which view it is that fails.
        """
        running = self._running.pop(number)
        parts = running.batch.parts
        if not failed:
            self._times.observe(len(parts), now - max(running.began, self._last_end))
        self._last_end = now
        completed = [
            part.ticket
            for place, part in enumerate(parts)
            if place not in failed and self._encoded(part)
        ]
        guilty = tuple(parts[place] for place in sorted(failed))
        if len(parts) > 1:
            middle = (len(guilty) + 1) // 2
            self._again.extend(half for half in (guilty[:middle], guilty[middle:]) if half)
            guilty = ()
        lost = tuple(part.ticket for part in guilty if part.ticket in self._jobs)
        for ticket in (*completed, *lost):
            self.remove(ticket)
        return Outcome(tuple(completed), lost)

    def _encoded(self, part: Part) -> bool:
        """Counts a view; says whether it was the last of its job."""
        job = self._jobs.get(part.ticket)
        if job is not None:
            job.encoded += 1
        return job is not None and job.encoded == job.views

    def _start(self, now: float) -> float:
        """The time at which the device is free for a new batch."""
        free = self._last_end
        for running in self._running.values():  # in the order in which they were given
            free = max(free, running.began) + self._times(len(running.batch.parts))
        if len(self._running) >= self._limits.overlap:
            # What is overdue may never come back: it needs as long again as it is late.
            free = max(free, 2 * now - free)
        return max(now, free)

    def _doubt(self, needed: float, left: float) -> None:
        if not self._running and not self._jobs:  # else what they take will correct the estimate
            self._times.doubt(needed, left)

    def _alone(self, views: int) -> float:
        return self._times.of_many(views, self._limits.max_batch)

    def _each(self) -> float:
        """Seconds that a view takes in a full batch."""
        return self._times(self._limits.max_batch) / self._limits.max_batch

    def _terms(self, now: float) -> _Terms:
        # While more waits than a batch takes, none is made small for one job's deadline: that
        # would make so many others late. Bulk work is late anyway where others wait.
        first, most = self._queue.first(), self._limits.max_batch
        waiting = sum(
            views
            for priority, views in self._waiting.items()
            if first is not None and priority <= first.priority
        )
        return _Terms(self._start(now), most if waiting > most else 1)

    def _needed(self, entry: Entry[None], terms: _Terms) -> float:
        """Seconds from the start of the next batch until a job can be done."""
        job = self._jobs[entry.ticket]
        return max(self._times(terms.least), self._alone(job.views - job.taken))

    def _first(
        self, terms: _Terms, refused: list[int], batch: Collection[int] = ()
    ) -> Entry[None] | None:
        """The job whose turn it is; those before it can't be served in time, and are refused.

        Jobs of which the batch has views already are not refused.
        """
        while (entry := self._queue.first()) is not None:
            needed, left = self._needed(entry, terms), entry.deadline - terms.start
            if entry.ticket in batch or needed <= left:
                break
            self.remove(entry.ticket)
            self._doubt(needed, left)
            refused.append(entry.ticket)
        return entry

    def _most(self, first: Priority, now: float) -> int:
        """The number of views that the next batch may have, by the job whose turn it is."""
        limits = self._limits
        uploads_come = now - self._last_upload < UPLOADS_COME
        if first is Priority.BULK and uploads_come and limits.short_batch:
            return min(limits.short_batch, limits.max_batch)
        return limits.max_batch

    def _fill(self, terms: _Terms, refused: list[int], most: int) -> tuple[Part, ...]:
        """The next batch, as large as it can be without making one of its jobs late."""
        later = _LATER * self._each()
        tickets: set[int] = set()
        parts: list[Part] = []
        due, longest = math.inf, math.inf
        urgent: Priority | None = None
        while len(parts) < most and (entry := self._first(terms, refused, tickets)) is not None:
            due = min(due, entry.deadline)
            size = len(parts) + 1
            if size > terms.least and terms.start + self._times(size) > due:
                break
            urgent = urgent or entry.priority
            if entry.priority is urgent:
                longest = _PADDED * self._times(size)
            elif self._times(size) > longest:
                break
            job = self._jobs[entry.ticket]
            parts.append(Part(entry.ticket, job.taken))
            tickets.add(entry.ticket)
            job.taken += 1
            self._waiting[entry.priority] -= 1
            self._queue.charge(entry.ticket, later)
            if job.taken == job.views:
                self._queue.remove(entry.ticket)
        return tuple(parts)

    def _begin(self, parts: tuple[Part, ...], now: float) -> Batch:
        batch = Batch(self._next_number, parts)
        self._next_number += 1
        self._running[batch.number] = _Running(batch, now)
        return batch
