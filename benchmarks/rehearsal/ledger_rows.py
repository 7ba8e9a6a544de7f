"""Reads what gateways have on record, from their SQLite files."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from benchmarks.rehearsal.history import LedgerRow
from gateway.ledger.packing import unpack_views

_QUERY = (
    "SELECT id, sha256, decision, cause, unscanned, views, total_ms, message "
    "FROM decisions ORDER BY seq"
)


def read_rows(gateway: str, folder: Path) -> list[LedgerRow]:
    """All decisions in the data folder of a gateway."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", timeout=10)) as database:
        return [
            LedgerRow(
                gateway=gateway,
                id=row[0],
                sha256=row[1],
                decision=row[2],
                cause=row[3],
                unscanned=bool(row[4]),
                similarities=tuple(
                    tuple(view.similarities) for view in (unpack_views(row[5]) if row[5] else ())
                ),
                total_ms=row[6],
                message=row[7],
            )
            for row in database.execute(_QUERY)
        ]
