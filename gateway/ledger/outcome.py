"""What becomes of a row."""

from __future__ import annotations

from enum import StrEnum


class Stored(StrEnum):
    """Where a record is, durably."""

    DATABASE = "database"
    SPOOL = "spool"
    NOWHERE = "nowhere"


class LedgerUnavailableError(Exception):
    """The database can't be used now; the message says why."""
