"""The record of every decision, as the rest of the gateway sees it."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from gateway.ledger import retention
from gateway.ledger.database import LedgerError
from gateway.ledger.errors import reason
from gateway.ledger.no_ledger import NoLedger
from gateway.ledger.outcome import LedgerUnavailableError, Stored
from gateway.ledger.policy_text import NotedPolicies, PolicyText, missing_policies
from gateway.ledger.record import DecisionRecord, ScoredBy
from gateway.ledger.scored_rows import newest_scored
from gateway.ledger.spool_queue import SpoolQueue
from gateway.ledger.store import Store
from gateway.ledger.writer import Writer
from gateway.metrics import Metrics
from imagesafety.policy import Policy

__all__ = ["AnyLedger", "Ledger", "LedgerUnavailableError", "NoLedger", "Stored"]

HOUSEKEEPING_SECONDS = 3600.0
ADOPT_SECONDS = 60.0  # also before the first: the first minute belongs to uploads
WATCH_SECONDS = 2.0
DELIVERY_DAYS = 4  # webhooks are retried for three
PAUSE_SECONDS = 0.05  # between two deletions
FIND_SECONDS = 0.25
_DAY = 24 * 3600 * 1_000_000  # microseconds
_NO_PLACE = (errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG)

T = TypeVar("T")

log = logging.getLogger("gateway")


class Ledger:
    """Keeps records in a database, and in a spool while that can't be used."""

    def __init__(
        self,
        url: str,
        spool_folder: Path,
        metrics: Metrics,
        *,
        retention_days: int,
        webhooks: bool = False,
    ) -> None:
        """`webhooks` says whether rejects and flags get a row in `deliveries`.

        Raises LedgerError for a URL that can't be used.
        """
        self._store = Store(url, webhooks=webhooks)
        self._policies = NotedPolicies()
        self._spool = SpoolQueue(spool_folder, self._policies, metrics)
        self._writer = Writer(self._store, self._spool, self._policies)
        self._metrics = metrics
        self._days = max(retention_days, DELIVERY_DAYS) if webhooks else retention_days
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="ledger-transaction")
        self._finders = ThreadPoolExecutor(2, thread_name_prefix="ledger-find")
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def start(self) -> None:
        """Bring the database up to date if it can be used, and begin to work.

        While it can't be, whatever the reason, rows go to the spool. Raises LedgerError for a spool
        folder that can't be used until somebody changes something: they would have no place then.
        """
        try:
            await self._spool.adopt()
        except OSError as error:
            for_good = isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
            if for_good or error.errno in _NO_PLACE:
                raise LedgerError(f"the spool can't be used: {reason(error)}") from error
            log.error("the spool can't be read: %s", reason(error))
        await self._writer.start()
        self._tasks = [
            asyncio.create_task(self._keep_house()),
            asyncio.create_task(self._watch_policies()),
        ]

    async def close(self) -> None:
        """Writes out what is queued, and ends."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._writer.close()
        await self._spool.close()
        for threads in (self._threads, self._finders):
            threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    async def record(self, record: DecisionRecord, *, until: float) -> Stored:
        """Returns when the record is durable, and says where.

        Never raises, and returns NOWHERE by the time.monotonic() `until` at the latest. A caller
        that is cancelled leaves the record to be written.
        """
        stored = await self._writer.submit(record, until)
        self._metrics.count_rows(stored, 1)
        return stored

    async def transaction(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a thread, in one transaction, and returns what it does.

        `work` may be run a second time, in a new transaction, so it must do nothing else than what
        a rollback undoes. Raises LedgerUnavailableError, and what `work` raises.
        """
        if self._closed:
            raise LedgerUnavailableError("the gateway is stopping")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._store.transaction, work)
        except LedgerUnavailableError:
            self._writer.doubt()  # tables that are gone are made again, and another file is taken
            raise

    async def find_scored(
        self, sha256: bytes, media_type: str, scored_by: ScoredBy
    ) -> DecisionRecord | None:
        """The newest record of these bytes with scores; None also while the database is no help."""
        if self._closed or self._writer.trouble is not None:
            return None
        loop = asyncio.get_running_loop()
        newest = partial(newest_scored, sha256=sha256, media_type=media_type, scored_by=scored_by)
        search = loop.run_in_executor(self._finders, self._store.transaction, newest)
        try:
            async with asyncio.timeout(FIND_SECONDS):
                return await search
        except (LedgerUnavailableError, TimeoutError) as error:
            log.debug("no repeats are found: %s", reason(error))
            return None

    def note_policy(self, policy: Policy) -> None:
        """Has the text of a policy written, before the first row that refers to it."""
        self._policies.note(PolicyText(policy.digest, policy.text, _now()))
        self._writer.look()

    def trouble(self) -> str | None:
        """The reason for which rows don't reach the database now, if so."""
        return self._writer.trouble or self._store.elsewhere()

    async def _keep_house(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(ADOPT_SECONDS)
            try:
                await self._spool.adopt()
                if time.monotonic() >= due:
                    await self._delete_old()
                    due = time.monotonic() + HOUSEKEEPING_SECONDS
                self._writer.look()
            except LedgerUnavailableError as error:  # which the writer reports
                log.debug("housekeeping of the ledger is put off: %s", error)
            except OSError as error:
                log.warning("housekeeping of the ledger is put off: %s", reason(error))
            except Exception:
                log.exception("housekeeping of the ledger failed")
                due = time.monotonic() + HOUSEKEEPING_SECONDS

    async def _watch_policies(self) -> None:
        """Write missing texts of policies again; notice an emptied database without uploads."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            stored = self._policies.stored
            if not stored or self._writer.trouble is not None:
                continue
            try:
                missing = await self.transaction(partial(missing_policies, digests=stored))
            except LedgerUnavailableError:
                continue  # the writer reports it
            except Exception as error:  # whatever a driver raises: the next look may go well
                log.debug("the texts of policies can't be looked for: %s", reason(error))
                continue
            if missing:
                self._policies.mark_missing(missing)
                self._writer.look()

    async def _delete_old(self) -> None:
        now = _now()
        before = now - self._days * _DAY
        # Asked for in this order: a decision that comes meanwhile is young.
        if not await self.transaction(retention.has_decisions):
            return
        young = await self.transaction(
            partial(retention.first_young, before=before, until=now + _DAY)
        )
        if young is None:
            # A clock that is ahead makes everything old. Where nothing comes, nothing is deleted.
            words = "no decision is younger than %d days: none is deleted until one is"
            log.warning(words, self._days)
            return
        deleted = 0
        while rows := await self.transaction(partial(retention.delete_decisions, before_seq=young)):
            deleted += rows
            await asyncio.sleep(PAUSE_SECONDS)
        in_force = self._policies.digests
        unused = await self.transaction(
            lambda connection: retention.unused_policies(connection, before, in_force)
        )
        if unused:
            await self.transaction(lambda connection: retention.delete_policies(connection, unused))
        if deleted:
            log.info("deleted %d decisions of over %d days", deleted, self._days)


AnyLedger = Ledger | NoLedger


def _now() -> int:
    return time.time_ns() // 1000
