"""Deletes what is older than it may be. Overrides and their changes stay."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, exists, func, select

from gateway.ledger.tables import decisions, deliveries, policies

MOST_ROWS = 200  # in one transaction, so that writers don't wait


def first_young(connection: Connection, before: int, until: int) -> int | None:
    """The `seq` of the first decision from between two times, microseconds since 1970, UTC.

    What came before it is old, whatever its own time: of a clock that was behind, rows look older
    than they are, and of one that was ahead younger.
    """
    columns = decisions.c
    query = select(func.min(columns.seq)).where(columns.at >= before, columns.at <= until)
    found: int | None = connection.scalar(query)
    return found


def has_decisions(connection: Connection) -> bool:
    """Whether there are any."""
    return connection.scalar(select(decisions.c.seq).limit(1)) is not None


def delete_decisions(connection: Connection, before_seq: int) -> int:
    """Deletes some decisions that came before one, with their deliveries; how many."""
    columns = decisions.c
    old = select(columns.seq, columns.id).where(columns.seq < before_seq).order_by(columns.seq)
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
