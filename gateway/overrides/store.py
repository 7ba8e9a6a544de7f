"""The overrides in force: in memory, from the database, or from a copy when that is down.

A database that was emptied, replaced or restored from a backup takes none out of force: what it has
lost is written back, also from the copy at a start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from gateway.ledger.errors import reason
from gateway.ledger.file_place import is_gone
from gateway.ledger.ledger import AnyLedger, LedgerUnavailableError, NoLedger
from gateway.ledger.occasional_log import ReasonLog
from gateway.metrics import Metrics
from gateway.overrides import changing
from gateway.overrides.entries import NewOverride, checked_author
from gateway.overrides.matching import Override, OverrideSet
from gateway.overrides.override_rows import (
    Change,
    Delta,
    Mark,
    changes,
    delta_since,
    has_lost,
    last_mark,
    lost_entries,
)
from gateway.overrides.saved_copy import CopyError, SavedCopy, read_copy, write_copy

POLL_SECONDS = 2.0
START_SECONDS = 5.0  # for how long a start waits for the database
MOST_IN_ONE_TRANSACTION = 500  # so that a long list doesn't keep decisions from being recorded
PAUSE_SECONDS = 0.05  # between two of them: SQLite lets those who wait try only now and then
MOST_STEPS = 5000  # changes that are applied one by one; of more, everything is read again

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Added:
    """The result of adding entries: the numbers of new ones, and of those there already."""

    changed: int
    unchanged: int


class OverrideStore:
    """The overrides in force, as `current`; it is replaced as a whole, and never changed."""

    def __init__(
        self,
        ledger: AnyLedger,
        metrics: Metrics,
        copy: Path | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`copy` is the file to start with when the database is down, new or emptied."""
        self.current = OverrideSet()
        self._ledger = ledger
        self._metrics = metrics
        self._copy = copy
        self._poll_seconds = poll_seconds
        self._seq = -1  # of the last change that `current` has; -1 before anything was read
        self._mark: Mark | None = None  # that change
        self._saved = SavedCopy(())  # what was in force before anything was read
        self._trouble: str | None = None
        self._failures = ReasonLog()
        self._reading = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._to_save = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Reads the overrides, from the copy if the database is down, and then follows changes."""
        if isinstance(self._ledger, NoLedger):
            return
        self._trouble = "the overrides were not read from the database yet"
        await self._read_copy()
        first = asyncio.create_task(self._try_to_refresh())
        down = self._ledger.trouble() is not None  # then it was waited for already
        await asyncio.wait({first}, timeout=0 if down else START_SECONDS)
        if self._seq < 0 and self._saved.entries:
            await self._take_copy()
        self._tasks = [asyncio.create_task(self._follow(first)), asyncio.create_task(self._save())]

    async def close(self) -> None:
        """Stops following changes, and completes the copy."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._write_copy()

    def trouble(self) -> str | None:
        """For /readyz: why the overrides may not be those of the database, else None."""
        return self._trouble

    async def refresh(self) -> None:
        """Read what was changed since the last time, and write back what the database has lost.

        Raises LedgerUnavailableError.
        """
        async with self._reading:
            seq, mark = self._seq, self._mark
            entries = len(self.current)
            if seq < 0:
                entries, mark = len(self._saved.entries), self._saved.mark
            read = partial(_sound_delta, seq=seq, mark=mark, entries=entries)
            delta = await self._ledger.transaction(read)
            if delta is None:
                delta = await self._put_back(
                    self._saved.entries if seq < 0 else self.current.entries
                )
            if delta.seq != seq or delta.removed is None:
                self.current = await asyncio.to_thread(_changed, self.current, delta)
                self._seq, self._mark = delta.seq, delta.mark
                self._saved = SavedCopy(())
                self._to_save.set()
            self._trouble = None
            self._failures.end()
            self._metrics.overrides.set(len(self.current))

    async def add(self, entries: Sequence[NewOverride], who: str, why: str) -> Added:
        """Adds entries, each in place of those for the same file or look. Known ones stay.

        They are in force when this returns. Of a long list a part may be in force when it fails;
        then it can be added again. Raises OverrideError and LedgerUnavailableError.
        """
        who, why = checked_author(who, why)
        # Off the event loop, where uploads wait: it may be a long list.
        checked = await asyncio.to_thread(lambda: [entry.checked() for entry in entries])
        changed = unchanged = 0
        for start in range(0, len(checked), MOST_IN_ONE_TRANSACTION):
            if start:
                await asyncio.sleep(PAUSE_SECONDS)
            some = checked[start : start + MOST_IN_ONE_TRANSACTION]
            add = partial(changing.add, entries=some, who=who, why=why)
            try:
                plan = await self._ledger.transaction(add)
            except LedgerUnavailableError as error:
                if start == 0:
                    raise
                await self._try_to_refresh()
                done = f"the first {start} of {len(checked)} entries were taken"
                raise LedgerUnavailableError(f"{done}, then: {error}") from error
            changed += len(plan.added)
            unchanged += plan.unchanged
        await self._try_to_refresh()
        return Added(changed, unchanged)

    async def remove(self, id: str, who: str, why: str) -> Override:  # noqa: A002
        """Takes an entry out of force; returns it.

        Raises NoSuchOverrideError, OverrideError and LedgerUnavailableError.
        """
        return await self._replace(id, None, who, why)

    async def change(
        self,
        id: str,  # noqa: A002
        entry: NewOverride,
        who: str,
        why: str,
    ) -> Override:
        """Puts another entry in the place of one; returns the old one. Raises as `remove`."""
        return await self._replace(id, entry.checked(), who, why)

    async def page(
        self, offset: int, limit: int, search: str = ""
    ) -> tuple[Sequence[Override], int]:
        """Up to `limit` entries in force, the newest first, and how many there are in all.

        `search` is a part of any text of an entry, or of a hash in hexadecimal.
        """
        current = self.current
        found = await asyncio.to_thread(current.search, search) if search else current.entries
        end = max(0, len(found) - offset)
        return found[max(0, end - limit) : end][::-1], len(found)

    async def history(
        self, *, before: int | None = None, limit: int = 100, override_id: str | None = None
    ) -> list[Change]:
        """Up to `limit` changes, the newest first: those with a smaller number than `before`.

        Raises LedgerUnavailableError.
        """
        return await self._ledger.transaction(
            lambda db: changes(db, before=before, limit=limit, override_id=override_id)
        )

    async def _replace(
        self,
        id: str,  # noqa: A002
        entry: NewOverride | None,
        who: str,
        why: str,
    ) -> Override:
        who, why = checked_author(who, why)
        old = await self._ledger.transaction(
            partial(changing.replace, id=id, entry=entry, who=who, why=why)
        )
        await self._try_to_refresh()
        return old

    async def _put_back(self, known: Sequence[Override]) -> Delta:
        """Write back the entries that the database has lost; return all that are in force then.

        Raises LedgerUnavailableError; the next try begins anew, and adds nothing twice.
        """
        lost = await self._ledger.transaction(lost_entries)
        entries = list({entry.id: entry for entry in (*lost, *known)}.values())
        first: Mark | None = None
        added = 0
        for start in range(0, len(entries), MOST_IN_ONE_TRANSACTION):
            if start:
                await asyncio.sleep(PAUSE_SECONDS)
            some = entries[start : start + MOST_IN_ONE_TRANSACTION]
            count, last = await self._ledger.transaction(partial(_put_back, entries=some))
            added, first = added + count, first or last
        delta = await self._ledger.transaction(partial(_everything, mark=first))
        if delta is None:
            raise LedgerUnavailableError("the database lost overrides again")
        if added:
            log.warning("the database had lost %d overrides in force: they are written back", added)
        return delta

    async def _try_to_refresh(self) -> None:
        try:
            await self.refresh()
        except LedgerUnavailableError as error:
            before, self._trouble = self._trouble, f"the overrides may be out of date: {error}"
            # The ledger says what keeps it from writing too, and needs a moment to find out.
            lasts = before == self._trouble and self._ledger.trouble() is None
            if lasts and self._failures.is_due(str(error)):
                log.error("the overrides can't be read: %s", error)
        except Exception as error:
            why = reason(error)
            self._trouble = f"the overrides can't be read: {why}"
            if self._failures.is_due(why):
                of_the_database = isinstance(error, SQLAlchemyError)
                log.error("the overrides can't be read: %s", why, exc_info=not of_the_database)

    async def _follow(self, first: asyncio.Task[None]) -> None:
        await first
        while True:
            await asyncio.sleep(self._poll_seconds)
            await self._try_to_refresh()
            is_known = self._seq >= 0 or bool(self._saved.entries)
            if is_known and await asyncio.to_thread(self._lacks_copy):
                self._to_save.set()

    def _lacks_copy(self) -> bool:
        """True if somebody removed the copy, most likely with the database of the same folder."""
        return self._copy is not None and is_gone(self._copy)

    async def _read_copy(self) -> None:
        if self._copy is None:
            return
        try:
            saved = await asyncio.to_thread(read_copy, self._copy)
        except CopyError as error:
            log.error("the copy of the overrides can't be used: %s", error)
        else:
            self._saved = saved or self._saved

    async def _take_copy(self) -> None:
        copied = await asyncio.to_thread(OverrideSet, self._saved.entries)
        if self._seq < 0:
            self.current = copied
            self._metrics.overrides.set(len(copied))
            words = "until the database can be read, %d overrides from %s are in force"
            log.warning(words, len(copied), self._copy)

    async def _save(self) -> None:
        while True:
            await self._to_save.wait()
            await asyncio.shield(self._write_copy())

    async def _write_copy(self) -> None:
        async with self._saving:
            if not self._to_save.is_set():
                return
            self._to_save.clear()
            if self._copy is None:
                return
            try:
                # Together: `refresh` replaces both.
                entries, mark = self.current.entries, self._mark or self._saved.mark
                await asyncio.to_thread(write_copy, self._copy, entries, mark)
            except CopyError as error:
                log.warning("the copy of the overrides can't be written: %s", error)


def _sound_delta(connection: Connection, seq: int, mark: Mark | None, entries: int) -> Delta | None:
    """The changes since `seq`; None if the database has lost overrides."""
    # Looked at last, so that nothing that is lost meanwhile is taken for removed.
    delta = delta_since(connection, seq, MOST_STEPS)
    if has_lost(connection, mark, entries) or (seq < 0 and lost_entries(connection)):
        return None
    return delta


def _put_back(connection: Connection, entries: Sequence[Override]) -> tuple[int, Mark | None]:
    return changing.put_back(connection, entries), last_mark(connection)


def _everything(connection: Connection, mark: Mark | None) -> Delta | None:
    """All entries; None if the database has lost change `mark`."""
    delta = delta_since(connection, -1, MOST_STEPS)
    return None if has_lost(connection, mark, len(delta.added)) else delta


def _changed(current: OverrideSet, delta: Delta) -> OverrideSet:
    if delta.removed is None:
        return OverrideSet(delta.added)
    return current.changed(delta.added, delta.removed)
