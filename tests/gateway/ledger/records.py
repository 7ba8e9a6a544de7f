"""Records for tests, and what a database has of them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from gateway.ledger.database import open_engine
from gateway.ledger.ledger import Ledger, Stored
from gateway.ledger.record import DecisionRecord, ScoredBy, Timings
from gateway.ledger.tables import decisions
from gateway.metrics import Metrics
from imagesafety.policy import Mode
from imagesafety.scores import PerceptualHash, View

SCORED_BY = ScoredBy("a" * 64, "b" * 64, "demo", "sha256:" + "c" * 64)
VIEWS = (
    View(0, 0.0, (0, 0, 480, 480), (0.125, -0.5, 0.25)),
    View(3, 1.5, (160, 0, 480, 480), (0.0, 1.0, -1.0), "black"),
)


def a_record(**changes: Any) -> DecisionRecord:
    record = DecisionRecord(
        id=secrets.token_hex(16),
        at=time.time_ns() // 1000,
        client="IPADDR",
        client_mode=Mode.ENFORCE,
        sha256=secrets.token_bytes(32),
        size=123_456,
        media_type="image/jpeg",
        decision="accept",
        cause="policy",
        message="no rule holds",
        timings=Timings(12.5, 1.25, 10.5, None, 6.0),
        scored_by=SCORED_BY,
        backend="pytorch-cpu-float32",
        found_type="image/jpeg",
        width=640,
        height=480,
        frames=1,
        total_frames=1,
        views=VIEWS,
        perceptual_hashes=(PerceptualHash(bytes(range(32)), 100, 0, "white"),),
    )
    return replace(record, **changes)


def soon() -> float:
    """The `until` of an upload that just came."""
    return time.monotonic() + 8


def ids_in(url: str) -> list[str]:
    """The ids in the table, in the order in which they came."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            statement = select(decisions.c.id).order_by(decisions.c.seq)
            return list(connection.execute(statement).scalars())
    finally:
        engine.dispose()


async def become(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running_ledger(
    url: str, spool: Path, *, webhooks: bool = False, metrics: Metrics | None = None
) -> AsyncIterator[Ledger]:
    ledger = Ledger(url, spool, metrics or Metrics(), retention_days=90, webhooks=webhooks)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


async def record_all(ledger: Ledger, records: list[DecisionRecord]) -> list[Stored]:
    return await asyncio.gather(*(ledger.record(record, until=soon()) for record in records))


def spool_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


async def drained(ledger: Ledger, folder: Path) -> None:
    """Waits until the spool is empty and rows go to the database."""
    await become(lambda: not spool_files(folder) and ledger.trouble() is None, "an empty spool")


def refuse_bad(connection: Connection) -> None:
    """Has the database refuse a message, as no row of ours is refused that we know of."""
    if connection.dialect.name == "sqlite":
        condition = "when new.message = 'bad' begin select raise(abort, 'bad'); end"
        connection.execute(text(f"create trigger no_bad before insert on decisions {condition}"))
    else:
        connection.execute(text("alter table decisions add check (message <> 'bad')"))
