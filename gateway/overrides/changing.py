"""Changes of overrides, each with its record in the same transaction."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from sqlalchemy import Connection

from gateway.overrides.change_plan import ChangePlan
from gateway.overrides.entries import NewOverride, OverrideError
from gateway.overrides.matching import Override
from gateway.overrides.override_rows import carry_out, find, lock_for_changes, sharing_a_hash


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


def _now() -> int:
    return time.time_ns() // 1000


def _new_id() -> str:
    return uuid.uuid4().hex
