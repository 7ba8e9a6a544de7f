"""The queue in front of the device, as plain code: bounded, ordered, and without dead entries.

Nothing here waits, computes or looks at a clock; `inference.batcher` does.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """Who goes first; smaller is sooner."""

    INTERACTIVE = 1
    BULK = 2


class QueueFullError(Exception):
    """The queue has as many entries as it takes."""


@dataclass(frozen=True)
class Taken(Generic[T]):
    """What left the queue: tickets and items to work on, and those whose deadline has passed."""

    batch: tuple[tuple[int, T], ...]
    late: tuple[tuple[int, T], ...]


class WorkQueue(Generic[T]):
    """Entries by priority, then deadline, then arrival."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._heap: list[tuple[int, float, int]] = []
        self._items: dict[int, T] = {}
        self._next_ticket = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, priority: Priority, deadline: float) -> int:
        """Queues an item and returns its ticket. Raises QueueFullError."""
        if len(self._items) >= self._max_entries:
            raise QueueFullError
        ticket = self._next_ticket
        self._next_ticket += 1
        self._items[ticket] = item
        heapq.heappush(self._heap, (priority, deadline, ticket))
        return ticket

    def remove(self, ticket: int) -> None:
        """Takes an entry out, if it is still there."""
        if self._items.pop(ticket, None) is None:
            return
        # Removed entries stay in the heap until they come up; a flood of cancelled calls must not
        # make it grow without bound.
        if len(self._heap) > 2 * len(self._items) + 64:
            self._heap = [entry for entry in self._heap if entry[2] in self._items]
            heapq.heapify(self._heap)

    def take(self, now: float, max_batch: int, least: Priority | None = None) -> Taken[T]:
        """Takes the next batch of at most `max_batch` items that can still meet their deadline.

        With `least`, only items of that priority or a higher one.
        """
        batch: list[tuple[int, T]] = []
        late: list[tuple[int, T]] = []
        while self._heap and len(batch) < max_batch:
            if least is not None and self._heap[0][0] > least:
                break
            _, deadline, ticket = heapq.heappop(self._heap)
            if ticket in self._items:
                entry = (ticket, self._items.pop(ticket))
                (late if deadline <= now else batch).append(entry)
        return Taken(tuple(batch), tuple(late))
