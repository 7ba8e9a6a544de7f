"""Overrides in the database. Each function is to be called in a transaction."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import (
    Connection,
    Row,
    Select,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from gateway.ledger.tables import override_changes, overrides
from gateway.overrides.change_plan import ChangePlan, What
from gateway.overrides.entries import NewOverride, as_json, from_json
from gateway.overrides.matching import Override, OverrideAction

_Item = TypeVar("_Item")

_ID = re.compile(r"[0-9a-f]{32}")  # PostgreSQL raises for some of what else there is
log = logging.getLogger("gateway")

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
class Mark:
    """The last change that a set of overrides has. A database without it is another one."""

    seq: int
    at: int
    override_id: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What is to be done to a set of overrides to have it as it was after change `seq`.

    `removed` is None if the set is to be replaced by `added` as a whole. `mark` is the change; None
    where there never was one.
    """

    seq: int
    added: tuple[Override, ...] = ()
    removed: tuple[str, ...] | None = ()
    mark: Mark | None = None


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
    mark = last_mark(connection)
    last = mark.seq if mark is not None else 0
    if last == seq:
        return Delta(seq, mark=mark)
    changed = (
        select(override_changes.c.override_id)
        .where(override_changes.c.seq > seq, override_changes.c.seq <= last)
        .limit(most + 1)
    )
    ids = list(connection.scalars(changed)) if 0 <= seq < last else []
    if not ids or len(ids) > most:
        every = tuple(_entries(connection, select(overrides)))
        return Delta(last, every, removed=None, mark=mark)
    ids = list(dict.fromkeys(ids))
    found: list[Override] = []
    for some in _in_parts(ids):
        found.extend(_entries(connection, select(overrides).where(overrides.c.id.in_(some))))
    found.sort(key=lambda entry: (entry.at, entry.id))
    present = {entry.id for entry in found}
    removed = tuple(key for key in ids if key not in present)
    return Delta(last, tuple(found), removed, mark)


def last_mark(connection: Connection) -> Mark | None:
    """The last change; None if there never was one."""
    columns = override_changes.c
    query = select(columns.seq, columns.at, columns.override_id)
    row = connection.execute(query.order_by(columns.seq.desc()).limit(1)).first()
    return Mark(row.seq, row.at, row.override_id) if row is not None else None


def has_lost(connection: Connection, mark: Mark | None, entries: int) -> bool:
    """True if the database has lost overrides of a set of `entries`, whose last change is `mark`.

    A history that is empty belongs to a new or emptied database, and one without `mark` to another
    one. While `mark` is the last change, the database has as many entries.
    """
    columns = override_changes.c
    known = select(columns.seq)
    if mark is not None:
        known = known.where(
            columns.seq == mark.seq,
            columns.at == mark.at,
            columns.override_id == mark.override_id,
        )
    last, count, is_known = connection.execute(
        select(
            select(func.max(columns.seq)).scalar_subquery(),
            select(func.count()).select_from(overrides).scalar_subquery(),
            exists(known),
        )
    ).one()
    if not is_known:
        return mark is not None or entries > 0
    return mark is not None and last == mark.seq and count != entries


def lost_entries(connection: Connection) -> list[Override]:
    """The entries that are in force by the history, and not in their table."""
    columns = override_changes.c
    last = select(func.max(columns.seq)).group_by(columns.override_id)
    query = select(columns.entry).where(
        columns.seq.in_(last),
        columns.what == "added",
        ~exists().where(overrides.c.id == columns.override_id),
    )
    found = []
    for entry in connection.scalars(query.order_by(columns.seq)):
        try:
            found.append(from_json(json.loads(entry)))
        except (ValueError, KeyError, TypeError) as error:
            log.error("an override in the history is damaged: %s", error)
    return found


def compared(
    connection: Connection, entries: Sequence[Override]
) -> tuple[list[Override], list[Override]]:
    """The entries that the database lacks and did not see removed, and those without a history."""
    ids = [entry.id for entry in entries]
    columns = override_changes.c
    done = select(columns.override_id, columns.what).where(columns.override_id.in_(ids))
    last = {row.override_id: row.what for row in connection.execute(done.order_by(columns.seq))}
    present = set(connection.scalars(select(overrides.c.id).where(overrides.c.id.in_(ids))))
    absent = [entry for entry in entries if entry.id not in present]
    missing = [entry for entry in absent if last.get(entry.id) != "removed"]
    return missing, [entry for entry in entries if entry.id in present - last.keys()]


def sharing_a_hash(
    connection: Connection, entries: Iterable[NewOverride | Override]
) -> list[Override]:
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
    record(connection, plan.changes, who=who, why=why, at=at)


def record(
    connection: Connection,
    done: Sequence[tuple[What, Override]],
    *,
    who: str,
    why: str,
    at: int,
) -> None:
    """Add changes to the history."""
    if done:
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
                for what, entry in done
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
