"""What became of an upload, in one word: what the overview counts and lists are filtered by."""

from __future__ import annotations

from sqlalchemy import ColumnElement, case, literal_column

from gateway.ledger.tables import decisions

OUTCOMES = ("accepted", "rejected", "flagged", "unscanned", "shadow")

# Literal, because SQLite uses a partial index only for the very condition that it was made with.
IS_UNSCANNED: ColumnElement[bool] = literal_column("decisions.unscanned")


def outcome() -> ColumnElement[str]:
    """One of OUTCOMES for each row: the gravest that it is."""
    return case(
        (decisions.c.decision == "reject", "rejected"),
        (decisions.c.unscanned.is_(True), "unscanned"),
        (decisions.c.flagged.is_(True), "flagged"),
        (decisions.c.shadow.is_not(None), "shadow"),
        else_="accepted",
    )


def is_upload() -> ColumnElement[bool]:
    """Whether a row is of an upload. A rescan is of an earlier one."""
    return decisions.c.rescan_of.is_(None)
