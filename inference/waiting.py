"""What waits and what runs, kept for those who look from outside. Plain code without a clock."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from inference.work_queue import Priority


class Waiting:
    """Images in a queue, by priority and arrival. May be read from other threads."""

    def __init__(self) -> None:
        self._arrivals: dict[Priority, dict[Hashable, float]] = {one: {} for one in Priority}

    def enter(self, key: Hashable, priority: Priority, now: float) -> None:
        """An image begins to wait."""
        self._arrivals[priority][key] = now

    def leave(self, key: Hashable, priority: Priority) -> float | None:
        """An image waits no longer; when it came, if it was waiting."""
        return self._arrivals[priority].pop(key, None)

    def count(self, priority: Priority) -> int:
        """How many wait."""
        return len(self._arrivals[priority])

    def oldest(self, priority: Priority) -> float | None:
        """When the first of those came that still wait."""
        # One step of the interpreter copies them, so that no other thread changes them meanwhile.
        return min(list(self._arrivals[priority].values()), default=None)


class DeviceClock:
    """For how long a device was busy: with one call at least, however many overlap.

    May be told and asked from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}
        self._calls = 0
        self._busy = 0.0
        self._counted = 0.0  # up to when the running calls are in `_busy`

    def begin(self, now: float) -> int:
        """A call begins; its number."""
        with self._lock:
            self._count(now)
            self._calls += 1
            self._running[self._calls] = now
            return self._calls

    def end(self, call: int, now: float) -> None:
        """A call ends."""
        with self._lock:
            self._count(now)
            del self._running[call]

    @property
    def is_busy(self) -> bool:
        """Whether a call runs."""
        return bool(self._running)

    def busy_seconds(self, now: float) -> float:
        """Seconds with at least one call until now."""
        with self._lock:
            self._count(now)
            return self._busy

    def longest(self, now: float) -> float:
        """For how many seconds the oldest running call has been running; 0 without any."""
        with self._lock:
            return now - min(self._running.values(), default=now)

    def _count(self, now: float) -> None:
        if self._running:
            self._busy += max(0.0, now - self._counted)
        self._counted = max(self._counted, now)
