"""A row on its way to the database or the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.ledger.outcome import Stored


class Pending:
    """A row and who waits for it. What is known of it is kept on the event loop only."""

    __slots__ = (
        *("being_written", "future", "hurries", "queued"),
        *("row", "spool_failed", "stored", "timer"),
    )

    def __init__(self, row: Mapping[str, object], future: asyncio.Future[Stored]) -> None:
        self.row = row
        self.future = future
        self.timer: asyncio.TimerHandle | None = None
        self.queued = False  # for the database
        self.being_written = False  # by it, just now
        self.stored = False  # in the database
        self.spool_failed = False
        self.hurries = False  # its upload has too little time left to tell a slow database by it

    @property
    def waits(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.future.done()

    def settle(self, stored: Stored) -> None:
        """Tells who waits, if somebody does."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.future.done():
            self.future.set_result(stored)
