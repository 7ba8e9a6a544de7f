"""What the overview reads from the ledger. Each function runs in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select, union

from gateway.admin.outcomes import IS_UNSCANNED, OUTCOMES, is_upload, outcome
from gateway.admin.periods import HOUR, Period
from gateway.ledger.tables import decisions, overrides

LATENCY_ROWS = 50_000
CORRECTED_ROWS = 20
MOST_CALLERS = 20


@dataclass(frozen=True)
class Hourly:
    """Counts by hour of a period, for each of OUTCOMES; their `totals`, and all `uploads`.

    `accepted` counts what was accepted without any of the others.
    """

    hours: range
    counts: dict[str, list[int]]

    @property
    def totals(self) -> dict[str, int]:
        """The sums of the series."""
        return {name: sum(values) for name, values in self.counts.items()}

    @property
    def uploads(self) -> int:
        """How many uploads were answered: each is in one series."""
        return sum(self.totals.values())


def _of(period: Period) -> ColumnElement[bool]:
    """The uploads of a period."""
    at = decisions.c.at
    return and_(at >= period.since, at <= period.until, is_upload())


def hourly(connection: Connection, period: Period) -> Hourly:
    """How many uploads became what, by hour."""
    hour, became = (decisions.c.at // HOUR).label("hour"), outcome().label("outcome")
    inner = select(hour, became).where(_of(period)).subquery()
    query = select(inner.c.hour, inner.c.outcome, func.count()).group_by(
        inner.c.hour, inner.c.outcome
    )
    counts = {name: [0] * len(period.hours) for name in OUTCOMES}
    for at, name, count in connection.execute(query):
        counts[name][int(at) - period.hours.start] = count
    return Hourly(period.hours, counts)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of the newest `rows` uploads: percentiles of the whole, means of its stages."""

    rows: int
    percentiles: dict[int, float]
    stages: dict[str, float | None]


def latency(connection: Connection, period: Period) -> Latency | None:
    """How long uploads took, None if there were none."""
    table = decisions.c
    newest = (
        select(table.total_ms, table.upload_ms, table.score_ms, table.decode_ms, table.encode_ms)
        .where(_of(period))
        .order_by(table.at.desc())
        .limit(LATENCY_ROWS)
    )
    part = newest.subquery()
    total = sorted(connection.scalars(select(part.c.total_ms)))
    if not total:
        return None
    means = connection.execute(
        select(
            func.avg(part.c.upload_ms),
            func.avg(part.c.score_ms),
            func.avg(part.c.decode_ms),
            func.avg(part.c.encode_ms),
        )
    ).one()
    return Latency(
        rows=len(total),
        percentiles={p: total[min(len(total) - 1, len(total) * p // 100)] for p in (50, 95, 99)},
        stages=dict(zip(("upload", "score", "decode", "encode"), means, strict=True)),
    )


@dataclass(frozen=True)
class Corrections:
    """Rejects that somebody has allowed afterwards: `uploads` of them, of so many `files`."""

    uploads: int
    files: int
    newest: Sequence[Row[*tuple[object, ...]]]


def corrections(connection: Connection, period: Period) -> Corrections:
    """The rejects of a period that an override allows now."""
    table, entry = decisions.c, overrides.c
    # Two selects and no OR, for which SQLite would compare every reject with every override.
    part = union(
        *(
            select(table.seq, table.id, table.at, table.rule, table.sha256, entry.who)
            .join_from(decisions, overrides, same)
            .where(entry.action == "allow", table.decision == "reject", table.at <= entry.at)
            .where(table.cause != "override", _of(period))
            for same in (table.sha256 == entry.sha256, table.id == entry.decision_id)
        )
    ).subquery()
    uploads, files = connection.execute(
        select(func.count(part.c.id.distinct()), func.count(part.c.sha256.distinct()))
    ).one()
    newest = connection.execute(select(part).order_by(part.c.seq.desc()).limit(CORRECTED_ROWS))
    return Corrections(uploads, files, list(newest))


def still_unscanned(connection: Connection, period: Period) -> int:
    """How many of the period's files nobody has looked at to this day."""
    waiting = or_(decisions.c.rescan.is_(None), decisions.c.rescan != "scanned")
    query = select(func.count()).where(IS_UNSCANNED, waiting, _of(period))
    return connection.scalar(query) or 0


@dataclass(frozen=True)
class Caller:
    """A program that called for a client: so many uploads in a period, and when the last one."""

    client: str
    user_agent: str
    uploads: int
    last: int


def callers(connection: Connection, period: Period) -> list[Caller]:
    """The programs that uploaded in a period, by the newest upload; those that gave a name."""
    table, last = decisions.c, func.max(decisions.c.at)
    query = (
        select(table.client, table.user_agent, func.count(), last)
        .where(table.user_agent.is_not(None), _of(period))
        .group_by(table.client, table.user_agent)
        .order_by(last.desc())
        .limit(MOST_CALLERS)
    )
    return [Caller(*row) for row in connection.execute(query)]
