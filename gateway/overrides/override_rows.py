"""Overrides in the database. Each function is to be called in a transaction."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Row, Select, delete, func, insert, or_, select, text, update

from gateway.ledger.tables import override_changes, overrides
from gateway.overrides.change_plan import ChangePlan
from gateway.overrides.entries import NewOverride, as_json
from gateway.overrides.matching import Override, OverrideAction

_Item = TypeVar("_Item")

_ID = re.compile(r"[0-9a-f]{32}")  # PostgreSQL raises for some of what else there is
_AT_A_TIME = 500  # values in one statement: SQLite and PostgreSQL have limits


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to an override, by whom and why. `entry` is the override, as JSON."""

    seq: int
    at: int
    who: str
    what: str
    why: str
    override_id: str
    entry: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What is to be done to a set of overrides to have it as it was after change `seq`.

    `removed` is None if the set is to be replaced by `added` as a whole.
    """

    seq: int
    added: tuple[Override, ...] = ()
    removed: tuple[str, ...] | None = ()


def lock_for_changes(connection: Connection) -> None:
    """Lets one writer at a time change overrides, so that `seq` grows in the order of commits.

    A reader could otherwise see a number, and never look for the smaller one that is committed
    after it. It also keeps two gateways from adding the same hash at once.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE override_changes IN EXCLUSIVE MODE"))
    else:  # a write, though of nothing: it takes SQLite's one write lock before anything is read
        connection.execute(update(overrides).where(overrides.c.id == "").values(note=""))


def delta_since(connection: Connection, seq: int, most: int) -> Delta:
    """What was changed after change `seq`; everything, if that was more than `most` times.

    Everything, too, if the database has not come as far as `seq`: it is another one then.
    """
    last = connection.scalar(select(func.max(override_changes.c.seq))) or 0
    if last == seq:
        return Delta(seq)
    changed = (
        select(override_changes.c.override_id)
        .where(override_changes.c.seq > seq, override_changes.c.seq <= last)
        .limit(most + 1)
    )
    ids = list(connection.scalars(changed)) if 0 <= seq < last else []
    if not ids or len(ids) > most:
        return Delta(last, tuple(_entries(connection, select(overrides))), removed=None)
    ids = list(dict.fromkeys(ids))
    found: list[Override] = []
    for some in _in_parts(ids):
        found.extend(_entries(connection, select(overrides).where(overrides.c.id.in_(some))))
    found.sort(key=lambda entry: (entry.at, entry.id))
    present = {entry.id for entry in found}
    return Delta(last, tuple(found), tuple(key for key in ids if key not in present))


def sharing_a_hash(connection: Connection, entries: Iterable[NewOverride]) -> list[Override]:
    """The entries in force that have a hash of one of `entries`."""
    result: dict[str, Override] = {}
    for some in _in_parts(list(entries)):
        files = [entry.sha256 for entry in some if entry.sha256 is not None]
        looks = [entry.pdq for entry in some if entry.pdq is not None]
        query = select(overrides).where(
            or_(overrides.c.sha256.in_(files), overrides.c.pdq.in_(looks))
        )
        result |= {entry.id: entry for entry in _entries(connection, query)}
    return list(result.values())


def find(connection: Connection, id: str) -> Override | None:  # noqa: A002
    """The entry in force with this id."""
    if not _ID.fullmatch(id):
        return None
    return next(_entries(connection, select(overrides).where(overrides.c.id == id)), None)


def carry_out(connection: Connection, plan: ChangePlan, *, who: str, why: str, at: int) -> None:
    """Does what is planned, and records it; `at` in microseconds since 1970, UTC."""
    for some in _in_parts(plan.removed):
        connection.execute(delete(overrides).where(overrides.c.id.in_(some)))
    if plan.added:
        connection.execute(insert(overrides), [_row(entry) for entry in plan.added])
    if plan.changes:
        connection.execute(
            insert(override_changes),
            [
                {
                    "at": at,
                    "who": who,
                    "what": what,
                    "why": why,
                    "override_id": entry.id,
                    "entry": json.dumps(as_json(entry)),
                }
                for what, entry in plan.changes
            ],
        )


def changes(
    connection: Connection,
    *,
    before: int | None,
    limit: int,
    override_id: str | None,
) -> list[Change]:
    """Up to `limit` changes, the newest first: those with a smaller number than `before`."""
    query = select(override_changes).order_by(override_changes.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(override_changes.c.seq < before)
    if override_id is not None:
        if not _ID.fullmatch(override_id):
            return []
        query = query.where(override_changes.c.override_id == override_id)
    return [
        Change(row.seq, row.at, row.who, row.what, row.why, row.override_id, row.entry)
        for row in connection.execute(query)
    ]


def _entries(connection: Connection, query: Select[tuple[object, ...]]) -> Iterator[Override]:
    for row in connection.execute(query.order_by(overrides.c.at, overrides.c.id)):
        yield _override(row)


def _override(row: Row[tuple[object, ...]]) -> Override:
    return Override(
        id=row.id,
        action=OverrideAction(row.action),
        sha256=bytes(row.sha256) if row.sha256 is not None else None,
        pdq=bytes(row.pdq) if row.pdq is not None else None,
        rule=row.rule,
        note=row.note,
        who=row.who,
        at=row.at,
        decision_id=row.decision_id,
    )


def _row(entry: Override) -> dict[str, object]:
    return {
        "id": entry.id,
        "action": entry.action.value,
        "sha256": entry.sha256,
        "pdq": entry.pdq,
        "rule": entry.rule,
        "note": entry.note,
        "who": entry.who,
        "at": entry.at,
        "decision_id": entry.decision_id,
    }


def _in_parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _AT_A_TIME):
        yield items[start : start + _AT_A_TIME]
