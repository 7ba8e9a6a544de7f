"""Rows on their way to the spool: those that come together share an fsync."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.ledger.errors import reason
from gateway.ledger.occasional_log import OccasionalLog
from gateway.ledger.outcome import Stored
from gateway.ledger.pending import Pending
from gateway.ledger.policy_text import NotedPolicies
from gateway.ledger.spool import Spool, SpoolFile
from gateway.metrics import Metrics

MOST_ROWS = 500  # in one write
MOST_WAITING = 10_000  # rows in memory, while the spool hangs

T = TypeVar("T")

log = logging.getLogger("gateway")


class SpoolQueue:
    """The spool, as the event loop sees it. Its files are touched in one thread only."""

    def __init__(self, folder: Path, policies: NotedPolicies, metrics: Metrics) -> None:
        self._spool = Spool(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._policies = policies
        self._metrics = metrics
        self._queue: deque[Pending] = deque()
        self._writing: list[Pending] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._losses = OccasionalLog()
        self._rows_in_files = 0
        self._has_files = False
        self.trouble: str | None = None

    @property
    def rows(self) -> int:
        """How many rows wait for the database here, in files or on their way there."""
        return self._rows_in_files + len(self._queue) + len(self._writing)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing for the database here."""
        return not self._has_files and self.rows == 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way to a file."""
        return self._idle.is_set()

    async def wait_until_idle(self) -> None:
        """Waits for what is on its way to a file."""
        await self._idle.wait()

    def put(self, entries: Iterable[Pending]) -> None:
        """Hands over rows, behind those that are there."""
        for entry in entries:
            if len(self._queue) < MOST_WAITING:
                self._queue.append(entry)
            else:
                self._lose([entry], "the spool does not answer")
        self._idle.clear()
        self._work.set()

    async def run(self) -> None:
        """Writes what comes, until it is cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                await self._write_some()
            self._idle.set()

    async def adopt(self) -> None:
        """Takes over what dead processes left. Raises OSError."""
        await self._in_thread(self._spool.adopt)
        self._show()

    async def oldest(self) -> SpoolFile | None:
        """The oldest complete file, None if there is none now."""
        return await self._in_thread(self._spool.oldest)

    async def discard(self, file: SpoolFile, *, keep: bool) -> None:
        """Forgets a file that is in the database; `keep` leaves it to people."""
        await self._in_thread(lambda: self._spool.discard(file, keep=keep))
        self._policies.mark_unspooled()  # it may have been in this file
        self._show()

    async def set_aside(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Keeps rows for people that the database refuses."""
        try:
            await self._in_thread(lambda: self._spool.set_aside(rows))
        except OSError as error:
            log.error("refused decisions can't be set aside either: %s", reason(error))

    async def close(self) -> None:
        """Leaves the files to whoever comes next."""
        await self._in_thread(self._spool.close)
        self._thread.shutdown(wait=False)

    async def _write_some(self) -> None:
        batch: list[Pending] = []
        while self._queue and len(batch) < MOST_ROWS:
            entry = self._queue.popleft()
            if not entry.stored:
                batch.append(entry)
        self._writing = batch
        policies = self._policies.not_safe()
        rows = [entry.row for entry in batch]
        try:
            await self._in_thread(lambda: self._spool.append(rows, policies))
        except Exception as error:
            if not isinstance(error, OSError):
                log.exception("writing decisions to the spool failed")
            self.trouble = reason(error)
            self._lose(batch, f"the spool takes nothing: {self.trouble}")
        else:
            self.trouble = None
            self._policies.mark_spooled(policies)
            for entry in batch:
                entry.settle(Stored.SPOOL)
        finally:
            self._writing = []
            self._show()

    def _lose(self, entries: list[Pending], why: str) -> None:
        """Gives up rows, but for those that the database may still take."""
        for entry in entries:
            entry.spool_failed = True
        lost = [
            entry
            for entry in entries
            if not entry.queued and not entry.being_written and not entry.stored
        ]
        for entry in lost:
            entry.settle(Stored.NOWHERE)
        if lost:
            self._losses.error(f"lost, {why}", len(lost))

    def _show(self) -> None:
        self._metrics.spooled.set(self._rows_in_files)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def run() -> T:
            try:
                return work()
            finally:
                self._rows_in_files = self._spool.rows
                self._has_files = self._spool.has_files

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)
