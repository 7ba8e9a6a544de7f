"""Loud messages that don't fill the log."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("gateway")


class OccasionalLog:
    """Logs an error at once, and then no more often than every `seconds`, with their number."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._count = 0

    def error(self, message: str, rows: int) -> None:
        """Logs that `message` holds for so many rows more."""
        self._count += rows
        if time.monotonic() < self._next:
            return
        log.error("%d decisions: %s", self._count, message)
        self._next, self._count = time.monotonic() + self._seconds, 0


class ReasonLog:
    """Log an error when its reason is new, and while it lasts once in `seconds`."""

    def __init__(self, seconds: float = 600.0) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def is_due(self, why: str) -> bool:
        """True if this reason must be logged now; the caller does so."""
        now = time.monotonic()
        # Those of before count too: where two take turns, neither is news.
        self._until = {reason: until for reason, until in self._until.items() if until > now}
        if why in self._until:
            return False
        self._until[why] = now + self._seconds
        return True

    def error(self, message: str, why: str) -> None:
        """Log a message with its reason, if that is due."""
        if self.is_due(why):
            log.error("%s: %s", message, why)

    def end(self) -> None:
        """Forget the reasons: when one comes again, that is news."""
        self._until.clear()
