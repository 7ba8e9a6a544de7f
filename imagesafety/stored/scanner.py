"""Rounds of a scan: one, or one after the other, whatever happens to place and service."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from imagesafety.admin_client import AdminApiError
from imagesafety.bulk import BulkOptions, BulkScorer
from imagesafety.client import ConceptSet
from imagesafety.override_list import OverrideListError
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, load_policy
from imagesafety.scoring_error import ScoringError, ServiceUnavailableError
from imagesafety.stored.actions import Action, Actor
from imagesafety.stored.allowances import Allowances
from imagesafety.stored.judge import Judge
from imagesafety.stored.place import Place, PlaceError, PlaceSettingError
from imagesafety.stored.quarantine import Quarantine
from imagesafety.stored.report_file import ReportError
from imagesafety.stored.scan_pass import Listener, ScanPass, Scope, ServiceTroubleError
from imagesafety.stored.settings import ScanSettings
from imagesafety.stored.state import State, StateError
from imagesafety.stored.tally import Tally

DESCRIBE_SECONDS = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0  # seconds, while a place or the service can't be used
MOST_TRIES = 3  # of one round without progress
_CLIENT = "scan"  # what the service shares itself out by

TROUBLE = (
    *(PlaceError, ScoringError, ServiceUnavailableError, ServiceTroubleError),
    *(PolicyError, OverrideListError, AdminApiError),
)
"""What may be otherwise a while later."""


_PASSES = (StateError, ReportError, sqlite3.Error)
_PASSING_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class MismatchError(Exception):
    """The policy is not for the model that the service has; the message is one line."""


@dataclass
class Scanner:
    """Scans a place, round by round."""

    settings: ScanSettings
    place: Place
    state: State
    listener: Listener
    say: Callable[[str], None]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    pause: float = FIRST_PAUSE
    clock: Callable[[], float] = time.time
    _actor: Actor | None = None

    async def once(self) -> Tally | None:
        """One round, after trouble from where it was; None if it was stopped.

        Raises what is in TROUBLE after a few tries without progress.
        """
        tries, pause, tally = 0, self.pause, Tally()
        while not self.stop.is_set():
            settled = tally.settled
            try:
                return tally if await self._until_stopped(self.round(tally)) else None
            except TROUBLE as error:
                # What failed, fails again in each try: to have looked at it is no progress.
                tries = 1 if tally.settled > settled else tries + 1
                if tries >= MOST_TRIES:
                    raise
                self.say(f"{error}; again in {pause:g} s")
            tally = tally.carried()
            await self._rest(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return None

    async def for_ever(self, every: float, ended: Callable[[Tally], None]) -> None:
        """Rounds until it is stopped; `ended` is called after each."""
        pause, tally = self.pause, Tally()
        while not self.stop.is_set():
            begun, settled = time.monotonic(), tally.settled
            try:
                if not await self._until_stopped(self.round(tally)):
                    return
            except (*TROUBLE, *_PASSES, MismatchError, PlaceSettingError) as error:
                if not _passes(error):
                    raise
                if tally.settled > settled:
                    pause = self.pause
                tally = tally.carried()
                self.say(f"{error}; again in {pause:g} s")
                await self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = self.pause
            ended(tally)
            tally = Tally()
            await self._rest(max(0.0, begun + every - time.monotonic()))

    async def round(self, tally: Tally) -> None:
        """Goes through the place once.

        Raises what is in TROUBLE, MismatchError and PlaceSettingError.
        """
        settings = self.settings
        # Without the list nothing is done: who is allowed in it would be taken for a hit.
        policy, allowances = await asyncio.to_thread(self._read)
        await self.place.check()
        options = BulkOptions(
            ConceptSet(policy.concepts),
            client=_CLIENT,
            tiles=policy.tiles,
            closer_when=policy.closer_when,
            perceptual_hashes=allowances.by_look,
        )
        async with BulkScorer(settings.service.target, options, settings.service.tls) as scorer:
            description = await scorer.describe_model(timeout=DESCRIBE_SECONDS)
            model = description.model
            if mismatch := policy.mismatch(model.name, model.weights_digest):
                raise MismatchError(mismatch)
            # It may have to connect to the quarantine.
            actor = await asyncio.to_thread(self._make_actor, description.limits.max_image_bytes)
            self._actor = actor
            tally.recovered += await actor.recover()
            self.listener.written()
            begun = self.clock()
            terms = f"{version('imagesafety')} {description.limits}"
            judge = Judge(policy, allowances, model, self.state, terms)
            scan = ScanPass(
                *(self.place, self.state, judge),
                *(actor, tally, self.listener),
                scope=Scope(
                    settings.prefix,
                    self._since(begun),
                    settings.limit - tally.settled if settings.limit is not None else None,
                ),
                most_bytes=description.limits.max_image_bytes,
                weights=model.weights_digest,
                clock=_now,
            )
            await scan.run(scorer)
            if self._goes_on and not tally.failed and not scan.ended_by_limit:
                self.state.leave_open(settings.prefix, begun)

    @property
    def _goes_on(self) -> bool:
        """Whether rounds follow each other, so that none may leave a hole to the one before."""
        return self.settings.every_seconds is not None and self.settings.since_seconds is not None

    def _since(self, now: float) -> float | None:
        """From when on files are gone through."""
        settings = self.settings
        if settings.since_seconds is None:
            return None
        since = now - settings.since_seconds
        if not self._goes_on:
            return since
        # What came during an outage, or a round that took longer than the window, is older.
        left_open = self.state.open_since(settings.prefix)
        if left_open is None:
            self.state.leave_open(settings.prefix, since)
            return since
        return min(since, left_open)

    def _make_actor(self, most_bytes: int) -> Actor:
        """Who does what is to be done. Raises PlaceSettingError."""
        settings, quarantine = self.settings, None
        if settings.action is Action.QUARANTINE and settings.apply:
            if settings.quarantine is None:
                raise PlaceSettingError("there is no quarantine to move files to")
            where = settings.quarantine
            quarantine = Quarantine(where.url, where.options, where.key)
        return Actor(
            *(self.place, self.state, settings.action),
            apply=settings.apply,
            most_bytes=most_bytes,
            quarantine=quarantine,
        )

    def _read(self) -> tuple[Policy, Allowances]:
        return load_policy(self.settings.policy), Allowances(self.settings.overrides())

    async def _until_stopped(self, work: Awaitable[None]) -> bool:
        """Whether the work was done; if it is stopped, then not in the middle of an action."""
        self._actor = None
        working = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return True
            if self._actor is not None:
                async with self._actor.busy:
                    working.cancel()
            return False
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _rest(self, seconds: float) -> None:
        """Waits, or less if it is stopped."""
        stopping = asyncio.create_task(self.stop.wait())
        await asyncio.wait({stopping}, timeout=seconds)
        stopping.cancel()


def _passes(error: Exception) -> bool:
    """Whether a daemon outlives it: a full disk, but not a state that is broken."""
    if not isinstance(error, sqlite3.Error):
        return True
    return error.sqlite_errorcode & 0xFF in _PASSING_CODES  # without what is more exact


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
