"""What the pages about decisions read from the ledger. Each function runs in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, select

from gateway.admin.filters import DecisionFilter
from gateway.ledger.record import DecisionRecord
from gateway.ledger.rows import readable_record
from gateway.ledger.tables import decisions, policies

PAGE_ROWS = 50

ListedRow = Row[*tuple[object, ...]]

_LISTED = (
    decisions.c.seq,
    decisions.c.id,
    decisions.c.at,
    decisions.c.client,
    decisions.c.sha256,
    decisions.c.size,
    decisions.c.media_type,
    decisions.c.decision,
    decisions.c.cause,
    decisions.c.rule,
    decisions.c.flagged,
    decisions.c.shadow,
    decisions.c.shadow_rule,
    decisions.c.unscanned,
    decisions.c.rescan,
    decisions.c.rescan_of,
    decisions.c.message,
    decisions.c.total_ms,
)


@dataclass(frozen=True)
class DecisionPage:
    """Some rows of `decisions`, newest first.

    `older` and `newer` are the numbers to go on from, None where there is nothing further. They
    stay right while rows come in.
    """

    rows: Sequence[ListedRow]
    older: int | None
    newer: int | None


def decision_page(
    connection: Connection,
    wanted: DecisionFilter,
    *,
    before: int | None = None,
    after: int | None = None,
) -> DecisionPage:
    """The newest rows that pass the filter; those `before` a number, or the next ones `after`."""
    query = select(*_LISTED).where(*wanted.conditions())
    if after is not None:
        query = query.where(decisions.c.seq > after).order_by(decisions.c.seq)
    else:
        if before is not None:
            query = query.where(decisions.c.seq < before)
        query = query.order_by(decisions.c.seq.desc())
    rows = list(connection.execute(query.limit(PAGE_ROWS + 1)))
    more, rows = len(rows) > PAGE_ROWS, rows[:PAGE_ROWS]
    if after is not None:
        rows.reverse()
        if not rows:
            return DecisionPage([], older=after + 1, newer=None)
        return DecisionPage(rows, older=rows[-1].seq, newer=rows[0].seq if more else None)
    older = rows[-1].seq if more else None
    newer = rows[0].seq if rows and before is not None else None
    return DecisionPage(rows, older, newer)


@dataclass(frozen=True)
class DecisionDetails:
    """One decision; `scored` is the row that holds its scores: itself, or the original's.

    `related` are its rescans, and other decisions about the same bytes, newest first.
    """

    record: DecisionRecord
    scored: DecisionRecord
    policy_text: str | None
    related: Sequence[ListedRow]


def decision_details(connection: Connection, id: str) -> DecisionDetails | None:  # noqa: A002
    """Everything recorded of one decision, or None if there is no such one."""
    record = _record(connection, id)
    if record is None:
        return None
    scored = record
    if not record.views and record.repeat_of is not None:
        scored = _record(connection, record.repeat_of) or record
    digest = scored.scored_by.policy_digest
    text = connection.scalar(select(policies.c.text).where(policies.c.digest == digest))
    return DecisionDetails(record, scored, text, _related(connection, record))


def _record(connection: Connection, id: str) -> DecisionRecord | None:  # noqa: A002
    row = connection.execute(select(decisions).where(decisions.c.id == id)).one_or_none()
    return readable_record(row) if row is not None else None


def _related(connection: Connection, record: DecisionRecord) -> Sequence[ListedRow]:
    """Rescans and others of the same bytes. Without a hash, nothing is known to be the same."""
    if record.sha256 is None:
        return []
    query = select(*_LISTED).where(decisions.c.sha256 == record.sha256)
    query = query.where(decisions.c.id != record.id).order_by(decisions.c.seq.desc())
    return list(connection.execute(query.limit(10)))


def known_rules(connection: Connection) -> list[str]:
    """The rules of recorded policies that have decided lately, to choose from."""
    newest = select(decisions.c.rule).order_by(decisions.c.seq.desc()).limit(5000).subquery()
    found = connection.scalars(select(newest.c.rule).where(newest.c.rule.is_not(None)).distinct())
    return sorted(str(rule) for rule in found)
