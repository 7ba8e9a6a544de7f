"""Changes of overrides, each with its record in the same transaction."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from sqlalchemy import Connection

from gateway.overrides.change_plan import ChangePlan, What
from gateway.overrides.entries import NewOverride, OverrideError
from gateway.overrides.matching import Override
from gateway.overrides.override_rows import (
    carry_out,
    compared,
    find,
    lock_for_changes,
    record,
    sharing_a_hash,
)

PUT_BACK_BY = "gateway"
PUT_BACK_WHY = "written back: it was in force, and the database had lost it"


class NoSuchOverrideError(OverrideError):
    """There is no override with this id."""


def add(connection: Connection, entries: Sequence[NewOverride], who: str, why: str) -> ChangePlan:
    """Adds entries, each in place of those for the same file or look; returns what that came to."""
    lock_for_changes(connection)
    plan, at = ChangePlan(), _now()
    plan.add(entries, sharing_a_hash(connection, entries), who=who, at=at, new_id=_new_id)
    carry_out(connection, plan, who=who, why=why, at=at)
    return plan


def replace(
    connection: Connection,
    id: str,  # noqa: A002 - what it is called everywhere
    entry: NewOverride | None,
    who: str,
    why: str,
) -> Override:
    """Removes the entry with this id, and adds another one if given; returns the old one.

    Raises NoSuchOverrideError.
    """
    lock_for_changes(connection)
    if (old := find(connection, id)) is None:
        raise NoSuchOverrideError(f"there is no override {id}")
    plan, at = ChangePlan(), _now()
    plan.remove(old)
    if entry is not None:
        existing = sharing_a_hash(connection, [entry])
        plan.add([entry], existing, who=who, at=at, new_id=_new_id)
    carry_out(connection, plan, who=who, why=why, at=at)
    return old


def put_back(connection: Connection, entries: Sequence[Override]) -> int:
    """Add entries that the database has lost, as they were; return the number.

    Not those that it has, which another gateway has put back, nor those that were removed since.
    Where only the history is lost, it begins anew.
    """
    lock_for_changes(connection)
    missing, unrecorded = compared(connection, entries)
    plan, at = ChangePlan(), _now()
    plan.put_back(missing, sharing_a_hash(connection, missing))
    carry_out(connection, plan, who=PUT_BACK_BY, why=PUT_BACK_WHY, at=at)
    done: list[tuple[What, Override]] = [("added", entry) for entry in unrecorded]
    record(connection, done, who=PUT_BACK_BY, why=PUT_BACK_WHY, at=at)
    return len(plan.added)


def _now() -> int:
    return time.time_ns() // 1000


def _new_id() -> str:
    return uuid.uuid4().hex
