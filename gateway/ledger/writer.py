"""Brings records to the database, many in one commit, and to the spool where that fails.

All of it is decided on the event loop; threads only do what they are told. Rows go one of two ways:

- straight: to the database thread, which takes at once what is there. Rows come together in one
  commit because they arrive during the commit before.
- through the spool, from when the database fails, or lets a row wait for longer than
  PATIENCE_SECONDS. What the database thread has and not answered then goes to the spool too: ids
  are unique, so it is no harm if both write it. Meanwhile the database is tried again and again,
  and gets what is in the spool, in order. When little is left there, new rows go straight again,
  behind that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.ledger.errors import reason
from gateway.ledger.occasional_log import OccasionalLog, ReasonLog
from gateway.ledger.outcome import LedgerUnavailableError, Stored
from gateway.ledger.pending import Pending
from gateway.ledger.policy_text import NotedPolicies
from gateway.ledger.record import DecisionRecord
from gateway.ledger.replay import replay
from gateway.ledger.rows import row_of
from gateway.ledger.spool_queue import SpoolQueue
from gateway.ledger.store import Refused, Store

PATIENCE_SECONDS = 0.25
MOMENT_SECONDS = 0.02
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds, between tries of a database that fails
MOST_ROWS = 500  # in one commit
FEW_ROWS = 200  # in the spool; the database has them before a row behind them loses patience
START_SECONDS = 3.0
CLOSE_SECONDS = 5.0

T = TypeVar("T")

log = logging.getLogger("gateway")


class Writer:
    """Makes records durable."""

    def __init__(self, store: Store, spool: SpoolQueue, policies: NotedPolicies) -> None:
        self._store, self._spool, self._policies = store, spool, policies
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._queue: deque[Pending] = deque()
        self._being_written: list[Pending] = []
        self._straight = True
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._in_doubt = False
        self._refusals = OccasionalLog()
        self._problems = ReasonLog()
        self._failures = ReasonLog()
        self._database_trouble: str | None = None

    async def start(self) -> None:
        """Bring the tables up to date, if the database can be used now, and begin to work."""
        preparing = asyncio.ensure_future(self._in_thread(self._store.prepare))
        await asyncio.wait({preparing}, timeout=START_SECONDS)
        try:
            if not preparing.done():
                # Uploads wait already; `_run` goes on when it is done.
                preparing.add_done_callback(lambda done: done.cancelled() or done.exception())
                self._go_round("the database does not answer")
            else:
                preparing.result()
        except LedgerUnavailableError as error:
            self._go_round(str(error))
        self._straight = self._straight and self._spool.rows <= FEW_ROWS
        self._tasks = [asyncio.create_task(self._spool.run()), asyncio.create_task(self._run())]
        self._work.set()

    async def close(self) -> None:
        """Writes out what is queued, and stops."""
        self._work.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
                await self._spool.wait_until_idle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in (*self._being_written, *self._queue):
            entry.settle(Stored.NOWHERE)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def submit(self, record: DecisionRecord, until: float) -> asyncio.Future[Stored]:
        """Take a record; the future has its place once it is durable.

        That is NOWHERE at the monotonic time `until`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Stored] = loop.create_future()
        try:
            entry = Pending(row_of(record), future)
        except Exception:
            log.exception("decision %s is lost: it can't be written", record.id)
            future.set_result(Stored.NOWHERE)
            return future
        patience = min(PATIENCE_SECONDS, max(0.0, until - time.monotonic()) / 2)
        entry.hurries = patience < PATIENCE_SECONDS
        entry.timer = loop.call_later(patience, self._wonder, entry, until)
        if self._straight:
            entry.queued = True
            self._queue.append(entry)
            self._idle.clear()
            self._work.set()
        else:
            self._spool.put([entry])
        return future

    def look(self) -> None:
        """Looks for policies and spooled rows that are not in the database."""
        self._work.set()

    def doubt(self) -> None:
        """Try the database soon: a transaction of others has failed."""
        self._in_doubt = True
        self._work.set()

    @property
    def trouble(self) -> str | None:
        """The reason for which rows don't reach the database now, if so."""
        if self._database_trouble is None or self._spool.trouble is None:
            return self._database_trouble
        return f"{self._database_trouble}; decisions are lost: the spool: {self._spool.trouble}"

    def _wonder(self, entry: Pending, until: float) -> None:
        """Lets the event loop, which may have stood still itself, see an answer that is there."""
        loop = asyncio.get_running_loop()
        left = max(0.0, until - time.monotonic())
        moment = min(MOMENT_SECONDS, left / 2)
        entry.timer = loop.call_later(moment, self._lose_patience, entry, until)

    def _lose_patience(self, entry: Pending, until: float) -> None:
        loop = asyncio.get_running_loop()
        left = max(0.0, until - time.monotonic())
        entry.timer = loop.call_later(left, entry.settle, Stored.NOWHERE)
        if not self._straight or not entry.waits:
            return
        if entry.hurries:  # which says nothing of the database
            self._spool.put([entry])
            self._work.set()
        else:
            self._go_round("the database does not answer")

    def _go_round(self, why: str) -> None:
        """From now on, rows go through the spool; also those that the database has not stored."""
        self._problems.error("decisions go to the spool, not to the database", why)
        self._database_trouble = why
        if self._straight:
            self._straight = False
            entries = [*self._being_written, *self._queue]
            for entry in self._queue:
                entry.queued = False
            self._queue.clear()
            self._spool.put(entries)

    def _give_back(self, why: str) -> None:
        """The database has failed, and with it what it was writing."""
        for entry in self._being_written:
            entry.being_written = False
            if entry.spool_failed:
                entry.settle(Stored.NOWHERE)
        self._go_round(why)
        self._being_written = []
        self._idle.set()

    def _go_straight(self) -> None:
        self._straight = True
        self._in_doubt = False
        if self._database_trouble is not None:
            log.warning("decisions go to the database again")
            self._database_trouble = None
            self._problems.end()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._bring_up_to_date()
                pause = FIRST_PAUSE
                continue
            except LedgerUnavailableError as error:
                why = str(error)
            except Exception as error:
                why = reason(error)
                if self._failures.is_due(why):
                    log.exception("writing decisions failed")
            self._give_back(why)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            self._work.set()

    async def _bring_up_to_date(self) -> None:
        """Do all there is to do. Raises LedgerUnavailableError."""
        if not self._store.ready:
            await self._in_thread(self._store.prepare)
            self._policies.write_again()  # the tables may be new
        elif self._store.elsewhere() is not None:
            await self._in_thread(self._store.check_place)
        if policies := self._policies.not_stored():
            await self._in_thread(lambda: self._store.write_policies(policies))
            self._policies.mark_stored(policies)
        if self._in_doubt and self._straight:
            self._in_doubt = False
            await self._in_thread(self._store.probe)
        while True:
            if not self._straight or not self._spool.is_empty:
                await self._empty_spool()
            elif self._queue:
                await self._write_some()
            else:
                break
        self._idle.set()

    async def _write_some(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_ROWS))]
        for entry in batch:
            entry.queued, entry.being_written = False, True
        self._being_written = batch
        rows = [entry.row for entry in batch]
        refused = await self._in_thread(lambda: self._store.write(rows))
        self._being_written = []
        lost = {one.row["id"] for one in refused}
        for entry in batch:
            entry.being_written = False
            entry.stored = entry.row["id"] not in lost
            entry.settle(Stored.DATABASE if entry.stored else Stored.NOWHERE)
        await self._set_aside(refused)

    async def _empty_spool(self) -> None:
        """Brings what is in the spool to the database, and lets new rows go straight again."""
        brought = 0
        while True:
            file = await self._spool.oldest()
            if file is not None:
                result = await replay(self._store, file.path, self._in_thread)
                brought += result.rows
                await self._set_aside(result.refused)
                await self._spool.discard(file, keep=result.damaged)
                if not result.rows:  # which says nothing of the database
                    continue
            elif self._straight and self._spool.is_idle:
                break
            elif self._straight:
                await self._spool.wait_until_idle()
            elif not brought:
                # Nothing that went through shows that the database takes rows.
                await self._in_thread(self._store.probe)
            if not self._straight and self._spool.rows <= FEW_ROWS:
                self._go_straight()
        if brought:
            log.warning("%d decisions came from the spool to the database", brought)

    async def _set_aside(self, refused: Sequence[Refused]) -> None:
        if refused:
            why = f"the database refuses them, they are set aside: {refused[0].why}"
            self._refusals.error(why, len(refused))
            await self._spool.set_aside([one.row for one in refused])

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
