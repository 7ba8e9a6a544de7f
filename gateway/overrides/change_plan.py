"""What adding and removing overrides comes to, in rows. Pure code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from gateway.overrides.entries import NewOverride
from gateway.overrides.matching import Override

What = Literal["added", "removed"]


@dataclass
class ChangePlan:
    """What is to be done, step by step: `changes` in their order, each to be recorded."""

    changes: list[tuple[What, Override]] = field(default_factory=list)
    unchanged: int = 0

    @property
    def added(self) -> tuple[Override, ...]:
        """The entries that are new in the end."""
        removed = {entry.id for what, entry in self.changes if what == "removed"}
        return tuple(
            entry for what, entry in self.changes if what == "added" and entry.id not in removed
        )

    @property
    def removed(self) -> tuple[str, ...]:
        """The ids of the entries that were there, and are not in the end."""
        added = {entry.id for what, entry in self.changes if what == "added"}
        return tuple(
            entry.id for what, entry in self.changes if what == "removed" and entry.id not in added
        )

    def remove(self, entry: Override) -> None:
        """Removes an entry that is in force."""
        self.changes.append(("removed", entry))

    def add(
        self,
        entries: Iterable[NewOverride],
        existing: Iterable[Override],
        *,
        who: str,
        at: int,
        new_id: Callable[[], str],
    ) -> None:
        """Adds entries, each in place of those that it can't be in force with.

        `existing` has at least all entries in force that share a hash with one of `entries`.
        """
        gone = set(self.removed)
        in_force: dict[bytes | None, list[Override]] = {}
        for old in existing:
            if old.id not in gone:
                in_force.setdefault(old.sha256 or old.pdq, []).append(old)
        # Each a microsecond later, so that a list keeps its order.
        for later, added in enumerate(entries):
            olds = in_force.setdefault(added.sha256 or added.pdq, [])
            entry = _with_look(added, olds)
            if any(entry.adds_nothing_to(old) for old in olds):
                self.unchanged += 1
                continue
            for old in [old for old in olds if entry.replaces(old)]:
                olds.remove(old)
                self.remove(old)
            new = entry.in_force(new_id(), who, at + later)
            olds.append(new)
            self.changes.append(("added", new))

    def put_back(self, entries: Iterable[Override], existing: Iterable[Override]) -> None:
        """Add entries that were in force before, as they were.

        Of two that can't both be in force, the newer one stays, but an entry with a look gives way
        to no entry that says the same of the bytes alone. `existing` is as in `add`.
        """
        in_force: dict[bytes | None, list[Override]] = {}
        for old in existing:
            in_force.setdefault(old.sha256 or old.pdq, []).append(old)
        for entry in entries:
            olds = in_force.setdefault(entry.sha256 or entry.pdq, [])
            new = NewOverride.of(entry)
            rivals = [old for old in olds if new.replaces(old)]
            if any(new.adds_nothing_to(old) or _outlasts(old, entry) for old in rivals):
                self.unchanged += 1
                continue
            for old in rivals:
                olds.remove(old)
                self.remove(old)
            olds.append(entry)
            self.changes.append(("added", entry))


def _with_look(entry: NewOverride, olds: Iterable[Override]) -> NewOverride:
    """The entry with the look of the one that it replaces, if it says the same of the bytes.

    A list of hashes of bytes says nothing of looks, and must not take them out of force.
    """
    for old in olds:
        same = (entry.action, entry.sha256) == (old.action, old.sha256)
        if same and entry.pdq is None and old.pdq is not None:
            decision = entry.decision_id or old.decision_id
            return replace(entry, pdq=old.pdq, rule=old.rule, decision_id=decision)
    return entry


def _outlasts(old: Override, entry: Override) -> bool:
    says_less = old.action is entry.action and old.pdq is None and entry.pdq is not None
    return old.at > entry.at and not says_less
