"""What the overview reads from the ledger. Each function runs in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, or_, select

from gateway.admin.periods import HOUR, Period
from gateway.ledger.tables import decisions, overrides

LATENCY_ROWS = 50_000
CORRECTED_ROWS = 20

SERIES = ("accepted", "rejected", "flagged", "unscanned", "shadow")


@dataclass(frozen=True)
class Hourly:
    """Counts by hour of a period, for each of SERIES; their `totals`, and all `uploads`.

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


def _outcome() -> ColumnElement[str]:
    """One of SERIES for each row: the gravest that it is."""
    return case(
        (decisions.c.decision == "reject", "rejected"),
        (decisions.c.unscanned.is_(True), "unscanned"),
        (decisions.c.flagged.is_(True), "flagged"),
        (decisions.c.shadow.is_not(None), "shadow"),
        else_="accepted",
    )


def _of(period: Period) -> ColumnElement[bool]:
    """The uploads of a period. A rescan is no upload."""
    at = decisions.c.at
    return and_(at >= period.since, at <= period.until, decisions.c.rescan_of.is_(None))


def hourly(connection: Connection, period: Period) -> Hourly:
    """How many uploads became what, by hour."""
    hour, outcome = (decisions.c.at // HOUR).label("hour"), _outcome().label("outcome")
    inner = select(hour, outcome).where(_of(period)).subquery()
    query = select(inner.c.hour, inner.c.outcome, func.count()).group_by(
        inner.c.hour, inner.c.outcome
    )
    counts = {name: [0] * len(period.hours) for name in SERIES}
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
    same = or_(table.sha256 == entry.sha256, table.id == entry.decision_id)
    corrected = (
        select(table.seq, table.id, table.at, table.client, table.rule, table.sha256, entry.who)
        .join_from(overrides, decisions, same)
        .where(entry.action == "allow", table.decision == "reject", table.at <= entry.at)
        .where(table.cause != "override", _of(period))
    )
    part = corrected.subquery()
    uploads, files = connection.execute(
        select(func.count(part.c.id.distinct()), func.count(part.c.sha256.distinct()))
    ).one()
    newest = connection.execute(corrected.order_by(table.seq.desc()).limit(CORRECTED_ROWS))
    return Corrections(uploads, files, list(newest))


def still_unscanned(connection: Connection, period: Period) -> int:
    """How many of the period's files nobody has looked at to this day."""
    waiting = or_(decisions.c.rescan.is_(None), decisions.c.rescan != "scanned")
    query = select(func.count()).where(decisions.c.unscanned.is_(True), waiting, _of(period))
    return connection.scalar(query) or 0
