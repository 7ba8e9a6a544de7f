"""The order of waiting work, as plain code: bounded, fair, and without dead entries.

Interactive before bulk; within that, clients share by weight (start-time fair queueing: Goyal, Vin
and Cheng, 1996); within a client, the earliest deadline first, then arrival. Nothing here waits,
computes or looks at a clock.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")

UPLOADS_COME = 10.0  # for how many seconds after an upload others count as likely to come
_REMEMBERED = 1000  # clients that have nothing waiting, and were served ahead of others
_NEVER = 1e9  # seconds: a deadline that something can still be due later than
_ROUNDING = 1e-9  # of sums of 1 / weight


class Priority(IntEnum):
    """Who goes first; smaller is sooner."""

    INTERACTIVE = 1
    BULK = 2


class QueueFullError(Exception):
    """The queue has as many entries as it takes, or as can be done in time."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What waits: `places` is how much of the queue's bound it takes."""

    ticket: int
    item: T
    priority: Priority
    deadline: float
    client: str
    places: int


@dataclass
class _Flow:
    """What one client has waiting in one priority."""

    served: float  # virtual time: what the client was given, by its weight
    heap: list[tuple[float, int]] = field(default_factory=list)  # (due, ticket)
    count: int = 0  # entries in the heap that still wait
    units: int = 0  # of work, that these entries still need


class WorkQueue(Generic[T]):
    """Entries in the order in which they are to be worked on."""

    def __init__(self, max_places: int, weights: Mapping[str, float] | None = None) -> None:
        """`weights` are those of clients by name, over 0; of those not named, 1."""
        self._max_places = max_places
        self._weights = weights or {}
        self._entries: dict[int, Entry[T]] = {}
        self._units: dict[int, int] = {}  # that entries still need, by ticket
        self._flows: dict[Priority, dict[str, _Flow]] = {priority: {} for priority in Priority}
        self._clock = dict.fromkeys(Priority, 0.0)  # virtual time of who was served last
        # Up to where those were served who have nothing waiting, while others wait.
        self._left: dict[Priority, dict[str, float]] = {priority: {} for priority in Priority}
        self._places = 0
        self._next_ticket = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self,
        item: T,
        priority: Priority,
        deadline: float,
        client: str = "",
        places: int = 1,
        units: int = 1,
        kept_free: int = 0,
    ) -> int:
        """Queues an item of `units` of work and returns its ticket.

        Raises QueueFullError if fewer than `kept_free` places were left.
        """
        if self._places + places > self._max_places - kept_free and self._entries:
            raise QueueFullError
        ticket = self._next_ticket
        self._next_ticket += 1
        self._entries[ticket] = Entry(ticket, item, priority, deadline, client, places)
        self._units[ticket] = units
        self._places += places
        flow = self._flows[priority].get(client)
        if flow is None:
            flow = self._flows[priority][client] = _Flow(self._begin(priority, client))
            self._left[priority].pop(client, None)
        flow.units += units
        heapq.heappush(flow.heap, (min(deadline, _NEVER), ticket))
        flow.count += 1
        return ticket

    def remove(self, ticket: int) -> Entry[T] | None:
        """Takes an entry out and returns it, if it is still there."""
        entry = self._entries.pop(ticket, None)
        if entry is None:
            return None
        self._places -= entry.places
        flows = self._flows[entry.priority]
        flow = flows[entry.client]
        flow.count -= 1
        flow.units -= self._units.pop(ticket)
        if flow.count == 0:
            del flows[entry.client]
            self._leave(entry, flow)
        # Removed entries stay in the heap until they come up; a flood of cancelled calls must not
        # make it grow without bound.
        elif len(flow.heap) > 2 * flow.count + 64:
            flow.heap = [pair for pair in flow.heap if pair[1] in self._entries]
            heapq.heapify(flow.heap)
        return entry

    def first(self, least: Priority = Priority.BULK) -> Entry[T] | None:
        """The entry whose turn it is, of those of priority `least` or a higher one."""
        for priority, flows in self._flows.items():
            if flows and priority <= least:
                flow = min(flows.values(), key=self._turn)
                return self._entries[flow.heap[0][1]]
        return None

    def waiting(self, least: Priority = Priority.BULK) -> int:
        """The units of work that wait in priority `least` or a higher one."""
        return sum(
            flow.units
            for priority, flows in self._flows.items()
            if priority <= least
            for flow in flows.values()
        )

    def ahead(
        self,
        priority: Priority,
        deadline: float,
        client: str,
        units: int = 1,
        start: float = 0.0,
        each: float = 0.0,
        later: float = 0.0,
    ) -> int:
        """How many units of work go before the last one of such an entry, if it came now.

        Those of a higher priority, those of its client that are due no later, and of each other
        client as many as its share is until then. Not counted is what will leave without being
        worked on, because it can't be done in time from `start`, with `each` seconds for a unit.
        `later` is as for `charge`.
        """
        higher = sum(
            flow.units
            for other, flows in self._flows.items()
            if other < priority
            for flow in flows.values()
        )
        own = self._flows[priority].get(client)
        before, due = 0, min(deadline, _NEVER) + (units - 1) * later
        for at, ticket in sorted(own.heap) if own is not None else ():
            if at > due:
                break
            needed = self._units.get(ticket, 0)
            if start + (higher + before + needed) * each <= at:
                before += min(needed, int((due - at) / later) + 1) if later else needed
        begin = own.served if own is not None else self._begin(priority, client)
        turn = begin + (before + units - 1) / self._weight(client)
        others = sum(
            min(flow.units, math.floor((turn - flow.served) * self._weight(name) + _ROUNDING) + 1)
            for name, flow in self._flows[priority].items()
            if name != client and flow.served <= turn + _ROUNDING
        )
        return higher + before + others

    def charge(self, ticket: int, later: float = 0.0) -> None:
        """Counts a unit of work for the client of the entry that `first` gave.

        What is left of the entry then counts as due `later` seconds later than before.
        """
        entry = self._entries[ticket]
        flow = self._flows[entry.priority][entry.client]
        self._clock[entry.priority] = max(self._clock[entry.priority], flow.served)
        flow.served += 1 / self._weight(entry.client)
        if self._units[ticket]:
            self._units[ticket] -= 1
            flow.units -= 1
        if later:
            due, _ = flow.heap[0]
            heapq.heapreplace(flow.heap, (due + later, ticket))

    def _begin(self, priority: Priority, client: str) -> float:
        """Where a client begins who has nothing waiting.

        Who was away has saved up nothing, and got away with nothing: it begins where those who
        are served are, or where it left.
        """
        return max(self._clock[priority], self._left[priority].get(client, 0.0))

    def _weight(self, client: str) -> float:
        return self._weights.get(client, 1.0)

    def _leave(self, entry: Entry[T], flow: _Flow) -> None:
        left = self._left[entry.priority]
        if not self._flows[entry.priority] or len(left) >= _REMEMBERED:
            left.clear()
        elif flow.served > self._clock[entry.priority]:
            left[entry.client] = flow.served

    def _turn(self, flow: _Flow) -> tuple[float, float, int]:
        while flow.heap[0][1] not in self._entries:
            heapq.heappop(flow.heap)
        return (flow.served, *flow.heap[0])
