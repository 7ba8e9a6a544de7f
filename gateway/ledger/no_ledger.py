"""What takes the place of the ledger where there is to be none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from gateway.ledger.outcome import LedgerUnavailableError, Stored
from gateway.ledger.record import DecisionRecord, ScoredBy
from imagesafety.policy import Policy

T = TypeVar("T")


class NoLedger:
    """Keeps nothing."""

    async def start(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Does nothing."""

    async def record(self, record: DecisionRecord, *, until: float) -> Stored:
        """Forgets the record, as it was configured to."""
        return Stored.DATABASE

    async def transaction(self, work: Callable[[Connection], T]) -> T:
        """Raises LedgerUnavailableError."""
        raise LedgerUnavailableError("there is no ledger")

    async def find_scored(
        self, sha256: bytes, media_type: str, scored_by: ScoredBy
    ) -> DecisionRecord | None:
        """Finds nothing."""
        return None

    def note_policy(self, policy: Policy) -> None:
        """Does nothing."""

    def trouble(self) -> str | None:
        """Has none."""
        return None
