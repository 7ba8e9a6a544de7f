"""Goes through a place once: what is known already is judged, and what is not is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass
from typing import Protocol

from imagesafety.bulk import BulkImage, BulkResult
from imagesafety.stored.actions import Actor, Hit, Outcome
from imagesafety.stored.finding import Finding, Kind
from imagesafety.stored.judge import Judge
from imagesafety.stored.lines import file_line, named_similarities
from imagesafety.stored.place import (
    GONE,
    UNREADABLE,
    FileTroubleError,
    Place,
    StoredFile,
    Unlisted,
    too_large,
)
from imagesafety.stored.reading import read_ahead, read_patiently, sha256_of
from imagesafety.stored.seen import Seen, seen_by_error, seen_by_scores, seen_by_trouble
from imagesafety.stored.state import Known, State
from imagesafety.stored.tally import Tally

_OVERRIDDEN = "OVERRIDDEN"  # why there are no scores of a file that is allowed or denied


class ServiceTroubleError(Exception):
    """The service answers with another model than it began with; the message is one line."""


@dataclass(frozen=True)
class Looked:
    """A file that was read."""

    file: StoredFile
    sha256: bytes


class Scorer(Protocol):
    """What of BulkScorer is needed."""

    def score(
        self, images: AsyncIterable[BulkImage[Looked]]
    ) -> AsyncGenerator[BulkResult[Looked], None]:
        """The result of each image, as they finish."""


@dataclass(frozen=True)
class Scope:
    """What of a place is gone through. `since` is in seconds since 1970."""

    prefix: str = ""
    since: float | None = None
    limit: int | None = None  # files that are looked at


class Listener(Protocol):
    """Whoever wants to see it happen."""

    def found(self, file: StoredFile, known: Known, outcome: Outcome, why: str) -> None:
        """A file is done."""

    def unlisted(self, part: Unlisted) -> None:
        """A part of the place, of which nobody knows what is in it."""

    def written(self) -> None:
        """The report may have new lines."""


class ScanPass:
    """One way through a place. What it raises, leaves the state so that another one goes on."""

    def __init__(
        self,
        place: Place,
        state: State,
        judge: Judge,
        actor: Actor,
        tally: Tally,
        listener: Listener,
        *,
        scope: Scope,
        most_bytes: int,
        weights: str,
        clock: Callable[[], str],
    ) -> None:
        """`weights` is the digest that results have to be of; `clock` tells the time for lines."""
        self._place, self._state, self._judge, self._actor = place, state, judge, actor
        self._tally, self._listener, self._scope = tally, listener, scope
        self._most_bytes, self._weights, self._clock = most_bytes, weights, clock
        self.ended_by_limit = False
        """Whether there are files that were not looked at."""
        self._under_way: dict[str, Known | None] = {}  # with what is recorded of each

    async def run(self, scorer: Scorer) -> None:
        """Raises PlaceError, ServiceTroubleError, and what the scorer raises."""
        # Whatever ends it: nobody reads images any more when they are closed, and the place's
        # listing, which holds folders open, is closed with them.
        async with (
            contextlib.aclosing(self._images()) as images,
            contextlib.aclosing(scorer.score(images)) as results,
        ):
            async for result in results:
                await self._take(result)

    async def _images(self) -> AsyncGenerator[BulkImage[Looked], None]:
        async def read(file: StoredFile) -> bytes:
            return await read_patiently(self._place, file, self._most_bytes)

        async with (
            contextlib.aclosing(self._new_files()) as files,
            contextlib.aclosing(read_ahead(files, read)) as was_read,
        ):
            async for file, data in was_read:
                if isinstance(data, FileTroubleError):
                    await self._trouble(file, data)
                    continue
                sha256 = await sha256_of(data)
                if not data:
                    seen = Seen(sha256, "EMPTY_IMAGE", "there is nothing in it")
                    await self._finish(file, seen)
                elif self._judge.allowances.denies_bytes(sha256) is not None:
                    seen = Seen(sha256, _OVERRIDDEN, "an override decides", may_pass=True)
                    await self._finish(file, seen)
                else:
                    yield BulkImage(Looked(file, sha256), data)

    async def _new_files(self) -> AsyncGenerator[StoredFile, None]:
        """The files that have to be looked at; of the others, what is known is made use of."""
        taken = 0
        files = self._place.files(self._scope.prefix, self._scope.since)
        async with contextlib.aclosing(files) as listing:
            async for entry in listing:
                if isinstance(entry, Unlisted):
                    self._unlisted(entry)
                    continue
                if entry.name in self._under_way:
                    continue
                before = self._state.known(entry.name)
                if await self._is_known(entry, before):
                    continue
                if taken == self._scope.limit:
                    self.ended_by_limit = True
                    return
                taken += 1
                self._under_way[entry.name] = before
                if entry.size > self._most_bytes:
                    await self._trouble(entry, too_large(self._most_bytes))
                else:
                    yield entry

    async def _is_known(self, file: StoredFile, before: Known | None) -> bool:
        """Whether no look at the file is needed; then all is done that is to be done with it."""
        if before is None or before.version != file.version:
            return False
        known = self._judge.again(before)
        if known is None:
            return False
        if known != before:
            self._record(file, known, before)
        await self._settle(file, known)
        return True

    async def _take(self, result: BulkResult[Looked]) -> None:
        looked = result.key
        if result.scores is not None:
            model = result.scores.model
            mismatch = self._judge.policy.mismatch(model.name, model.weights_digest)
            if mismatch or model.weights_digest != self._weights:
                raise ServiceTroubleError(mismatch or "the service has other weights than before")
            seen = seen_by_scores(looked.sha256, result.scores)
        elif result.error is not None:
            seen = seen_by_error(looked.sha256, result.error)
        else:  # pragma: no cover - one of them is set
            raise ServiceTroubleError("the service gave neither scores nor an error")
        await self._finish(looked.file, seen)

    async def _trouble(self, file: StoredFile, error: FileTroubleError) -> None:
        if error.reason != GONE:
            await self._finish(file, seen_by_trouble(error))
            return
        # Nothing is recorded of what is not there: it may be there again.
        self._under_way.pop(file.name, None)
        known = self._judge.of(seen_by_trouble(error), file.version)
        self._state.tell(file_line(self._clock(), file, known, {}))
        await self._settle(file, known)

    async def _finish(self, file: StoredFile, seen: Seen) -> None:
        """Records what was seen, and does what is to be done."""
        known = self._judge.of(seen, file.version)
        self._record(file, known, self._under_way.pop(file.name, None))
        self._tally.looked_at += 1
        outcome = await self._settle(file, known)
        if not _may_pass(known) and outcome is not Outcome.CHANGED:
            self._tally.settled += 1

    def _record(self, file: StoredFile, known: Known, before: Known | None) -> None:
        """Records it, with a line if it says more than was said before of the same version."""
        same_file = before is not None and before.version == known.version
        said = before.finding if before is not None and same_file else Finding(Kind.CLEAN)
        silent = (Kind.CLEAN, Kind.NOT_MEDIA)
        if _says(known.finding) == _says(said) or {known.finding.kind, said.kind} <= set(silent):
            self._state.record(file, known, None)
            return
        similarities = named_similarities(self._judge.policy, known)
        self._state.record(file, known, file_line(self._clock(), file, known, similarities))

    async def _settle(self, file: StoredFile, known: Known) -> Outcome:
        """Counts it, and does what is to be done; what became of that."""
        self._tally.count(known.finding, may_pass=_may_pass(known))
        self._listener.written()
        outcome, why = Outcome.NONE, ""
        if known.finding.kind is Kind.HIT and known.seen.sha256 is not None:
            similarities = named_similarities(self._judge.policy, known)
            hit = Hit(file, known.seen.sha256, known.finding.rule, similarities)
            outcome, why = await self._actor.act(hit)
            self._tally.count_outcome(outcome, known.finding.rule)
            self._listener.written()
        self._listener.found(file, known, outcome, why)
        return outcome

    def _unlisted(self, part: Unlisted) -> None:
        file = StoredFile(part.name, -1, "not listed")
        seen = Seen(None, UNREADABLE, part.message, may_pass=True)
        self._record(file, self._judge.of(seen, file.version), self._state.known(file.name))
        self._tally.failed[UNREADABLE] += 1
        self._tally.problems[UNREADABLE] += 1
        self._listener.written()
        self._listener.unlisted(part)


def _says(finding: Finding) -> tuple[object, ...]:
    return finding.kind, finding.rule, finding.reason


def _may_pass(known: Known) -> bool:
    """Whether the file is to be looked at again."""
    return known.seen.may_pass and known.finding.kind in (Kind.FLAG, Kind.SHADOW, Kind.PROBLEM)
