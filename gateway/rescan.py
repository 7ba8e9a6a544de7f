"""Looks at files that were accepted unscanned: fetches them from pict-rs when there is room again.

One file at a time. What is found out becomes a record of its own, whose id follows from that of the
first one: so neither a crash nor two gateways on one database make two of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

from gateway.evidence import Cause, TooLargeError
from gateway.ledger.ledger import AnyLedger, LedgerUnavailableError, Stored
from gateway.ledger.record import DecisionRecord, Rescan
from gateway.metrics import Metrics
from gateway.rescan_queue import Found, pending, progress, rescan_id, settle
from imagesafety.pict_rs import DamagedError, PictRs, PictRsError, UnknownFormatError

SETTLE_SECONDS: Final = 300.0  # for how long pict-rs may still be storing what it asked about
IDLE_SECONDS: Final = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds, while there is no room
FIRST_REST, LONGEST_REST = 60.0, 6 * 3600.0  # seconds, for a file that was tried in vain
MOST_TRIES: Final = 8  # of one file, over 17 hours
RECORD_SECONDS: Final = 30.0

Look = Callable[[bytes, DecisionRecord], Awaitable[DecisionRecord]]
"""Scores and decides a file that was unscanned before; may raise TooLargeError."""

_NO_ROOM = (Cause.OVERLOAD, Cause.UNAVAILABLE)
_IN_VAIN = (Cause.DEADLINE, Cause.ERROR)

log = logging.getLogger("gateway")


class NoRoomError(Exception):
    """Nothing can be scanned now; the message says why."""


class _InVainError(Exception):
    """A file could not be looked at; the message says why. `for_good`: it never will be."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class _Rest:
    """A file that was tried `tries` times in vain rests until a time.monotonic()."""

    tries: int
    until: float


class Rescanner:
    """Works off the pending rows of a ledger."""

    def __init__(
        self,
        ledger: AnyLedger,
        pict_rs: PictRs,
        look: Look,
        ready: Callable[[], Awaitable[bool]],
        metrics: Metrics,
        *,
        on_late_reject: Literal["report", "purge"],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ready` says whether inference would score now; `clock` gives seconds since 1970."""
        self._ledger = ledger
        self._pict_rs = pict_rs
        self._look = look
        self._ready = ready
        self._metrics = metrics
        self._purges = on_late_reject == "purge"
        self._clock = clock
        self._rests: dict[str, _Rest] = {}
        self._progress = 0

    async def run(self) -> None:
        """Works until it is cancelled."""
        pause, trouble = FIRST_PAUSE, ""
        while True:
            before = self._progress
            try:
                await self.work_off()
            except (NoRoomError, PictRsError, LedgerUnavailableError) as error:
                if str(error) != trouble:
                    ledger = isinstance(error, LedgerUnavailableError)  # which reports it itself
                    log.log(logging.DEBUG if ledger else logging.WARNING, "rescans wait: %s", error)
                trouble = str(error)
            except Exception:
                log.exception("rescans wait")
                trouble = "an internal error"
            else:
                trouble = ""
            if not trouble or self._progress > before:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause if trouble else IDLE_SECONDS)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def work_off(self) -> None:
        """Goes through all that is pending, once.

        Raises NoRoomError, PictRsError or LedgerUnavailableError if there is no use in going on.
        """
        after = 0
        while batch := await self._ledger.transaction(partial(pending, after=after)):
            if not await self._ready():
                raise NoRoomError("inference is not ready")
            after = batch[-1][0]
            # Gateways on one database would all do the same one otherwise.
            random.shuffle(batch)
            for _, record in batch:
                rest = self._rests.get(record.id)
                if rest is None or rest.until <= time.monotonic():
                    await self._rescan(record)

    async def _rescan(self, record: DecisionRecord) -> None:
        is_pending, found = await self._ledger.transaction(lambda c: progress(c, record.id))
        if not is_pending or record.sha256 is None:
            return
        at = datetime.fromtimestamp(record.at / 1e6, UTC)
        try:
            aliases = await self._pict_rs.find(record.sha256, record.size, record.media_type, at)
        except (DamagedError, UnknownFormatError) as error:
            await self._in_vain(record, _InVainError(str(error)))
            return
        if found is None and not aliases:
            if abs(self._clock() - record.at / 1e6) >= SETTLE_SECONDS:
                await self._settle(record, Rescan.GONE, "gone")
            return
        try:
            if found is None:
                found = await self._look_again(record, aliases[0])
            if found.decision == "reject":
                await self._on_late_reject(record, found, aliases)
        except _InVainError as error:
            await self._in_vain(record, error)
        else:
            state = Rescan.FAILED if found.unscanned else Rescan.SCANNED
            await self._settle(record, state, "failed" if found.unscanned else found.decision)

    async def _look_again(self, record: DecisionRecord, alias: str) -> Found:
        """Scans a file and records what was found. Raises _InVainError and NoRoomError."""
        try:
            new = await self._look(await self._fetch(record, alias), record)
        except TooLargeError as error:
            raise _InVainError(str(error), for_good=True) from error
        except PictRsError as error:
            raise _InVainError(str(error)) from error
        except Exception as error:
            log.exception("looking again at %s failed", record.id)
            raise _InVainError("an internal error") from error
        if new.cause in _NO_ROOM:
            raise NoRoomError(new.message)
        if new.cause in _IN_VAIN:
            raise _InVainError(new.message)
        new = replace(new, id=rescan_id(record.id), rescan_of=record.id, rescan=None)
        stored = await self._ledger.record(new, until=time.monotonic() + RECORD_SECONDS)
        if stored is Stored.NOWHERE:
            raise NoRoomError("what a rescan found can't be recorded")
        # Another gateway may have been faster, and of another opinion.
        _, found = await self._ledger.transaction(lambda c: progress(c, record.id))
        return found or Found(new.decision, new.rule, new.unscanned)

    async def _fetch(self, record: DecisionRecord, alias: str) -> bytes:
        """The file, whole and the same that was uploaded. Raises PictRsError."""
        chunks, digest = [], hashlib.sha256()
        async with contextlib.aclosing(self._pict_rs.fetch(alias, record.size)) as fetched:
            async for chunk in fetched:
                chunks.append(chunk)
                digest.update(chunk)
        if digest.digest() != record.sha256:
            raise PictRsError("the file in pict-rs is another one than was uploaded")
        return b"".join(chunks)

    async def _on_late_reject(
        self, record: DecisionRecord, found: Found, aliases: tuple[str, ...]
    ) -> None:
        """Reports or purges a file. Raises _InVainError if pict-rs does not purge it."""
        done = "it stays in pict-rs"
        if self._purges:
            try:
                done = "purged" if aliases and await self._pict_rs.purge(aliases[0]) else "gone"
            except PictRsError as error:
                raise _InVainError(f"it is to be purged, but {error}") from error
        log.warning(
            "late reject: id=%s rescan_of=%s rule=%s sha256=%s aliases=%s: %s",
            *(rescan_id(record.id), record.id, found.rule, (record.sha256 or b"").hex()),
            *(",".join(aliases), done),
        )

    async def _in_vain(self, record: DecisionRecord, error: _InVainError) -> None:
        """Lets a file rest, or gives it up."""
        earlier = self._rests.get(record.id)
        tries = 1 + (earlier.tries if earlier is not None else 0)
        if error.for_good or tries >= MOST_TRIES:
            log.error("rescan of %s given up: %s", record.id, error)
            await self._settle(record, Rescan.FAILED, "failed")
            return
        rest = min(LONGEST_REST, FIRST_REST * 4 ** (tries - 1))
        log.warning("rescan of %s: %s; again in %d s", record.id, error, rest)
        self._rests[record.id] = _Rest(tries, time.monotonic() + rest)

    async def _settle(self, record: DecisionRecord, state: Rescan, outcome: str) -> None:
        """Takes a row out of the queue. Raises LedgerUnavailableError."""
        self._rests.pop(record.id, None)
        self._progress += 1
        if await self._ledger.transaction(lambda c: settle(c, record.id, state)):
            self._metrics.count_rescan(outcome)
            log.info("rescan of %s: %s", record.id, outcome)
