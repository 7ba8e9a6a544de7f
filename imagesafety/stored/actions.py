"""What is done with a hit, once: each action is written down before it begins and when it ended."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from imagesafety.stored.place import (
    GONE,
    FileTroubleError,
    Place,
    PlaceError,
    PlaceSettingError,
    StoredFile,
    as_name,
)
from imagesafety.stored.quarantine import Quarantine, QuarantineError
from imagesafety.stored.reading import read_patiently
from imagesafety.stored.state import Line, OpenAction, State


class Action(StrEnum):
    """What is to be done with hits."""

    REPORT = "report"
    PURGE = "purge"
    DELETE = "delete"
    QUARANTINE = "quarantine"


PAST = {
    Action.REPORT: "reported",
    Action.PURGE: "purged",
    Action.DELETE: "deleted",
    Action.QUARANTINE: "moved to quarantine",
}


class Outcome(StrEnum):
    """What became of an action."""

    NONE = "none"  # there was nothing to do but to report it
    WOULD = "would"  # it would have been done, had --yes been given
    DONE = "done"
    CHANGED = "changed"  # it is another file now, which was left alone
    GONE = "gone"  # somebody else was faster
    FAILED = "failed"
    BROKEN_OFF = "broken off"  # by a kill, before it was done


@dataclass(frozen=True)
class Hit:
    """A file that is to go, and why."""

    file: StoredFile
    sha256: bytes
    rule: str
    similarities: Mapping[str, float]


def check_action(action: Action, place: Place) -> None:
    """Raises PlaceSettingError for an action that the place doesn't have."""
    if action is Action.PURGE and place.removing != "purge":
        raise PlaceSettingError("--action purge is for pict-rs; --action delete deletes files")
    if action is Action.DELETE and place.removing != "delete":
        raise PlaceSettingError("files of pict-rs are removed with --action purge")


class Actor:
    """Does one kind of action at one place."""

    def __init__(
        self,
        place: Place,
        state: State,
        action: Action,
        *,
        apply: bool,
        most_bytes: int,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Raises PlaceSettingError for an action that the place doesn't have."""
        check_action(action, place)
        self.action = action
        self._place, self._state, self._apply = place, state, apply
        self._quarantine, self._most_bytes = quarantine, most_bytes
        self.busy = asyncio.Lock()
        """Held while something is being done."""

    async def act(self, hit: Hit) -> tuple[Outcome, str]:
        """Does it; what became of it, and why. Raises PlaceError, which `recover` sets right."""
        if self.action is Action.REPORT:
            return Outcome.NONE, ""
        if not self._apply:
            return Outcome.WOULD, ""
        async with self.busy:
            now = time.time()
            journal = self._state.begin_action(hit.file, hit.sha256, self.action, hit.rule, now)
            try:
                outcome, why = await self._do(hit), ""
            except FileTroubleError as error:
                outcome = Outcome.GONE if error.reason == GONE else Outcome.FAILED
                why = str(error)
            except QuarantineError as error:
                outcome, why = Outcome.FAILED, str(error)
            self._end(journal, outcome, why)
            return outcome, why

    async def recover(self) -> int:
        """Finds out what became of actions that a kill broke off; how many had been done.

        What was not done is done when a scan finds the file again, if it still is a hit then.
        Raises PlaceError, also for a quarantine that can't be asked.
        """
        done = 0
        for journal in self._state.open_actions():
            file = StoredFile(as_name(journal.name), -1, journal.version)
            try:
                now = await self._place.look(file)
            except FileTroubleError:
                continue
            if now is not None:
                self._end(journal, Outcome.BROKEN_OFF, "", forget=now.version != journal.version)
                continue
            outcome = Outcome.DONE
            if journal.action == Action.QUARANTINE:
                if self._quarantine is None:
                    continue
                try:
                    holds = await asyncio.to_thread(self._quarantine.holds, journal.sha256)
                except QuarantineError as error:
                    raise PlaceError(str(error)) from error
                outcome = Outcome.DONE if holds else Outcome.GONE
            done += outcome is Outcome.DONE
            self._end(journal, outcome, "")
        return done

    async def _do(self, hit: Hit) -> Outcome:
        now = await self._place.look(hit.file)
        if now is None:
            return Outcome.GONE
        if now.version != hit.file.version:
            return Outcome.CHANGED
        data = await read_patiently(self._place, now, self._most_bytes)
        if hashlib.sha256(data).digest() != hit.sha256:
            return Outcome.CHANGED
        if self._quarantine is not None and self.action is Action.QUARANTINE:
            await asyncio.to_thread(self._quarantine.hold, data, self._note(hit))
        if await self._place.remove(now):
            return Outcome.DONE
        return Outcome.GONE if await self._place.look(now) is None else Outcome.CHANGED

    def _note(self, hit: Hit) -> Mapping[str, object]:
        """What a file in quarantine has beside it."""
        return {
            "from": self._place.identity,
            "name": hit.file.name,
            "aliases": list(hit.file.aliases),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rule": hit.rule,
            "similarities": dict(hit.similarities),
        }

    def _end(
        self, journal: OpenAction, outcome: Outcome, why: str, *, forget: bool | None = None
    ) -> None:
        line: Line | None = None
        if outcome in (Outcome.DONE, Outcome.CHANGED, Outcome.FAILED):
            line = {
                "kind": "action",
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "action": journal.action,
                "outcome": outcome,
                "name": as_name(journal.name),
                "sha256": journal.sha256.hex(),
                "rule": journal.rule,
                **({"message": why} if why else {}),
            }
        if forget is None:
            forget = outcome is not Outcome.FAILED
        self._state.end_action(journal, outcome, time.time(), line, forget=forget)
