"""Takes a new policy on a running gateway: from its file, when that changes or somebody asks.

What can't be used leaves the old policy in force. A new one becomes current by one assignment,
after inference has scored a picture for it: its concepts are warm then, and known to be accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.metrics import Metrics
from gateway.policy_in_force import CurrentPolicy, PolicyInForce
from gateway.policy_trial import NotTakenError, try_policy
from imagesafety.client import ScoringClient
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, PolicyProbeError, parse_policy

LARGEST_BYTES = 1024 * 1024
LOOK_SECONDS = 1.0
LOOKS_BETWEEN_TRIES = 5  # while inference doesn't take the policy

log = logging.getLogger("gateway")


class NotesPolicies(Protocol):
    """What keeps the texts of policies: the ledger."""

    def note_policy(self, policy: Policy) -> None:
        """Sees to it that the policy's text is kept."""


@dataclass(frozen=True)
class _Seen:
    """What is in the file: `text`, or why that can't be had. `digest` tells contents apart."""

    digest: str
    text: str = ""
    problem: str | None = None


class PolicyReloader:
    """Keeps `current` as the policy's file is."""

    def __init__(
        self,
        path: Path,
        current: CurrentPolicy,
        client: ScoringClient,
        ledger: NotesPolicies,
        metrics: Metrics,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`path` is the file that `current` came from, which is looked at every `look_seconds`."""
        self._path, self._current, self._client = path, current, client
        self._ledger, self._metrics, self._look_seconds = ledger, metrics, look_seconds
        self._asked = asyncio.Event()
        self._before: _Seen | None = None  # what the last look has found
        self._problem: tuple[str, str] | None = None  # digest of a content, and what is wrong
        self._warned: tuple[str, str] | None = None  # of which problem the log has told
        self._counted: str | None = None  # digest of the content that was counted as refused
        self._final = False  # whether only another content can change that
        self._pause = 0  # looks until the next try

    def ask(self) -> None:
        """Has the file looked at now, and tried again if it was refused; for SIGHUP."""
        self._asked.set()

    def trouble(self) -> str | None:
        """Why the policy in force is not the one in the file, if so."""
        return self._problem[1] if self._problem is not None else None

    async def run(self) -> None:
        """Looks at the file again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                # The reloader has to be there for the next change of the file.
                log.exception("looking at the policy file failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._asked.wait()
            if self._asked.is_set():
                self._asked.clear()
                self._before = None  # or this look and one just before it would count as two
                self._warned = None

    async def look(self) -> None:
        """Looks at the file once; takes what two looks in a row have found the same."""
        seen = await asyncio.to_thread(_read, self._path)
        settled, self._before = seen == self._before, seen
        if seen.digest == self._current.value.policy.digest:
            self._problem = None
            return
        if not settled:
            self._final, self._pause = False, 0
            return
        if self._final or self._pause > 0:
            self._pause -= 1
            return
        await self._try(seen)

    async def _try(self, seen: _Seen) -> None:
        if seen.problem is not None:
            self._note_problem(seen, seen.problem, refused=True)
            return
        try:
            policy = await asyncio.to_thread(
                parse_policy, seen.text, str(self._path), self._path.parent
            )
        except PolicyError as error:
            self._note_problem(seen, str(error), refused=True)
            # The file of a probe may come after the policy's.
            self._final = not isinstance(error, PolicyProbeError)
            return
        try:
            await try_policy(self._client, PolicyInForce(policy))
        except NotTakenError as error:
            # Tried again even where inference refuses it: another model may be on its way there.
            self._note_problem(seen, str(error), refused=error.refused)
            self._final = False
            return
        # Meanwhile somebody may have taken a mistake back.
        if await asyncio.to_thread(_read, self._path) != seen:
            return
        self._ledger.note_policy(policy)
        self._current.value = PolicyInForce(policy)
        self._problem = None
        self._metrics.count_reload("taken")
        log.info(
            "a new policy is in force: %d concepts, rules %s (%s)",
            *(len(policy.concepts), ", ".join(rule.name for rule in policy.rules), policy.digest),
        )

    def _note_problem(self, seen: _Seen, reason: str, *, refused: bool) -> None:
        self._final, self._pause = True, LOOKS_BETWEEN_TRIES
        if refused and self._counted != seen.digest:
            self._counted = seen.digest
            self._metrics.count_reload("refused")
        self._problem = (seen.digest, reason)
        if self._warned != self._problem:
            self._warned = self._problem
            log.warning("the old policy stays in force: %s", reason)


def _read(path: Path) -> _Seen:
    try:
        if not path.is_file():
            return _Seen("", problem=f"{path}: no such policy file")
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        return _Seen("", problem=f"{path}: cannot be read: {error}")
    if len(data) > LARGEST_BYTES:
        return _Seen(_digest(data), problem=f"{path}: over {LARGEST_BYTES} bytes")
    try:
        # As text files are read, so that digests agree with those of `load_policy`.
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        return _Seen(_digest(data), problem=f"{path}: cannot be read: {error}")
    return _Seen(_digest(text.encode()), text)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
