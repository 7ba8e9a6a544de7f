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
