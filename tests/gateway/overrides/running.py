"""Override stores on a real ledger."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from gateway.ledger.ledger import Ledger
from gateway.metrics import Metrics
from gateway.overrides.store import OverrideStore


@contextlib.asynccontextmanager
async def running_ledger(database: str) -> AsyncIterator[Ledger]:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(database, Path(folder) / "spool", Metrics(), retention_days=90)
        await ledger.start()
        try:
            yield ledger
        finally:
            await ledger.close()


@contextlib.asynccontextmanager
async def running_store(
    database: str, copy: Path | None = None, poll_seconds: float = 3600.0
) -> AsyncIterator[OverrideStore]:
    """A store on a ledger of its own, as another gateway has it."""
    async with running_ledger(database) as ledger:
        store = OverrideStore(ledger, Metrics(), copy, poll_seconds=poll_seconds)
        await store.start()
        try:
            yield store
        finally:
            await store.close()


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it is so; a test fails that waits too long."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other gateways set no event of ours
            await asyncio.sleep(0.01)
