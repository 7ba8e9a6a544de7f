"""The files that wait for a rescan: rows of the ledger with `rescan = 'pending'`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, literal_column, select, update

from gateway.ledger.record import DecisionRecord, Rescan
from gateway.ledger.rows import readable_record
from gateway.ledger.tables import decisions

BATCH_ROWS: Final = 32

# Literal, because a database can't use a partial index for a parameter.
_PENDING = decisions.c.rescan == literal_column(f"'{Rescan.PENDING}'")


@dataclass(frozen=True, slots=True)
class Found:
    """What is on record of a rescan."""

    decision: str
    rule: str | None
    unscanned: bool


def rescan_id(id: str) -> str:  # noqa: A002
    """The id of the record that tells what came of the rescan of another one."""
    return hashlib.sha256(b"rescan of " + id.encode()).hexdigest()[:32]


def put_in(connection: Connection, id: str, sha256: bytes, size: int) -> bool:  # noqa: A002
    """Has a row wait whose body came whole only after its answer; False if it is not there."""
    columns = decisions.c
    late = update(decisions).where(columns.id == id, columns.sha256.is_(None))
    values = {"sha256": sha256, "size": size, "rescan": Rescan.PENDING.value}
    return connection.execute(late.values(values)).rowcount == 1


def pending(connection: Connection, after: int) -> list[tuple[int, DecisionRecord]]:
    """The oldest rows that wait, each with its `seq`, which is over `after`."""
    statement = (
        select(decisions)
        .where(_PENDING, decisions.c.seq > after)
        .order_by(decisions.c.seq)
        .limit(BATCH_ROWS)
    )
    return [(row.seq, readable_record(row)) for row in connection.execute(statement)]


def progress(connection: Connection, id: str) -> tuple[bool, Found | None]:  # noqa: A002
    """Whether a row waits still, and what is on record of its rescan."""
    columns = decisions.c
    waits = connection.execute(select(columns.id).where(columns.id == id, _PENDING)).first()
    statement = select(columns.decision, columns.rule, columns.unscanned)
    row = connection.execute(statement.where(columns.id == rescan_id(id))).first()
    found = Found(row.decision, row.rule, bool(row.unscanned)) if row is not None else None
    return waits is not None, found


def settle(connection: Connection, id: str, state: Rescan) -> bool:  # noqa: A002
    """Takes a row out of the queue; False if it waited no more."""
    statement = update(decisions).where(decisions.c.id == id, _PENDING)
    return connection.execute(statement.values(rescan=state.value)).rowcount == 1
