"""Deletes what is older than it may be. Overrides and their changes stay."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, exists, func, select

from gateway.ledger.tables import decisions, deliveries, policies

MOST_ROWS = 200  # in one transaction, so that writers don't wait


def is_all_old(connection: Connection, before: int) -> bool:
    """Whether there are decisions, and all of them are from before a time."""
    columns = decisions.c
    some, young = (
        connection.scalar(select(columns.seq).where(*conditions).limit(1))
        for conditions in ((), (columns.at >= before,))
    )
    return some is not None and young is None


def delete_decisions(connection: Connection, before: int) -> int:
    """Deletes some decisions from before a time, with their deliveries; how many.

    `before` is in microseconds since 1970, UTC.
    """
    columns = decisions.c
    # Only what came before anything younger: rows of a clock that was behind look old.
    youngest = select(func.min(columns.seq)).where(columns.at >= before).scalar_subquery()
    old = (
        select(columns.seq, columns.id)
        .where(columns.at < before, columns.seq < youngest)
        .order_by(columns.at)
    )
    rows = connection.execute(old.limit(MOST_ROWS)).all()
    if rows:
        ids = [row.id for row in rows]
        connection.execute(delete(deliveries).where(deliveries.c.decision_id.in_(ids)))
        connection.execute(delete(decisions).where(columns.seq.in_([row.seq for row in rows])))
    return len(rows)


def unused_policies(connection: Connection, before: int, in_force: Collection[str]) -> list[str]:
    """Digests of policies from before a time that no decision refers to."""
    statement = select(policies.c.digest).where(
        policies.c.first_used < before,
        policies.c.digest.not_in(in_force),
        ~exists().where(decisions.c.policy_digest == policies.c.digest),
    )
    return list(connection.execute(statement).scalars())


def delete_policies(connection: Connection, digests: Collection[str]) -> None:
    """Deletes the texts of policies."""
    connection.execute(delete(policies).where(policies.c.digest.in_(digests)))
