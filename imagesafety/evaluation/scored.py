"""Scores of labelled files: of the cache where they are known, else of the service.

Files are read ahead in threads; what the cache does not have goes to the service's bulk stream, and
comes back in the order in which it is done. The same bytes are scored once, wherever they lie.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Protocol

from imagesafety.bulk import BulkImage, BulkOptions, BulkResult, BulkScorer, ScoringError
from imagesafety.client import ConceptSet
from imagesafety.evaluation.cached_scores import (
    CachedScores,
    FileError,
    Floats,
    ViewPlace,
    cached_scores,
)
from imagesafety.evaluation.material import LabelledFile
from imagesafety.evaluation.read_ahead import ReadFile, read_ahead
from imagesafety.evaluation.score_cache import CacheSection, ScoreCache
from imagesafety.evaluation.score_section import OtherModelError as OtherModelError
from imagesafety.evaluation.score_section import section_for
from imagesafety.policy import Policy
from imagesafety.scores import ModelDescription
from imagesafety.service_address import ServiceAddress

TOO_LARGE = "TOO_MANY_BYTES"
_DESCRIBE_SECONDS = 30.0
_MOST_WAITING = 256  # results that wait to be taken


class ProgressBar(Protocol):
    """What is told how far the work is; imagesafety.progress has one."""

    def advance(self, n: int = 1) -> None:
        """So many more are done."""

    def note(self, text: str) -> None:
        """Something to show beside the bar."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFile:
    """A file with its scores, or the `problem` for which it has none.

    `sha256` is hexadecimal, empty for a file that can't be read. `similarities` has a row for each
    view and a column for each concept of the policy, in its order. `partial` says why a part of the
    file could not be looked at; what the service itself says is wrong with a file is in `error`.
    """

    file: LabelledFile
    sha256: str
    similarities: Floats | None
    embeddings: Floats | None = None
    partial: str = ""
    problem: str = ""
    error: FileError | None = None
    places: tuple[ViewPlace, ...] = ()
    backend: str = ""


async def score_material(
    files: Iterable[LabelledFile],
    policy: Policy,
    service: ServiceAddress,
    cache: ScoreCache,
    *,
    bar: ProgressBar,
    embeddings: bool = False,
) -> AsyncGenerator[ScoredFile, None]:
    """Every file once, with its scores or what is wrong with it, as they are done.

    Raises OtherModelError, what BulkScorer raises where there is no service, CacheError, and what
    `files` raises. What was scored until then stays in the cache.
    """
    options = BulkOptions(
        concepts=ConceptSet(policy.concepts),
        tiles=policy.tiles,
        closer_when=policy.closer_when,
        embeddings=embeddings,
    )
    async with BulkScorer(service.target, options, service.tls) as scorer:
        model = await scorer.describe_model(timeout=_DESCRIBE_SECONDS)
        section = section_for(cache, policy, model, embeddings=embeddings)
        work = _Work(policy, model, section)
        try:
            async with contextlib.aclosing(work.results(scorer, files)) as results:
                async for result in results:
                    bar.advance()
                    yield result
        finally:
            section.flush()


class _Work:
    """One run over some files."""

    def __init__(self, policy: Policy, model: ModelDescription, section: CacheSection) -> None:
        self._policy, self._model, self._section = policy, model, section
        self._copies: dict[bytes, list[LabelledFile]] = {}  # by the hash of what is being scored
        self._out: asyncio.Queue[ScoredFile | None] = asyncio.Queue(_MOST_WAITING)

    async def results(
        self, scorer: BulkScorer, files: Iterable[LabelledFile]
    ) -> AsyncGenerator[ScoredFile, None]:
        """What becomes of each file."""
        working = asyncio.create_task(self._work(scorer, files))
        try:
            while (result := await self._out.get()) is not None:
                yield result
            await working
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await working

    async def _work(self, scorer: BulkScorer, files: Iterable[LabelledFile]) -> None:
        try:
            async with contextlib.aclosing(scorer.score(self._unknown(files))) as results:
                async for result in results:
                    await self._take(result)
        finally:
            if not _cancelled():
                await self._out.put(None)

    async def _unknown(
        self, files: Iterable[LabelledFile]
    ) -> AsyncGenerator[BulkImage[bytes], None]:
        """The images to score; what is known without is handed out on the way."""
        most_bytes = self._model.limits.max_image_bytes
        async with contextlib.aclosing(read_ahead(files, most_bytes)) as reading:
            async for read in reading:
                if read.data is None:
                    await self._out.put(_without_scores(read))
                elif (copies := self._copies.get(read.sha256)) is not None:
                    copies.append(read.file)
                elif (known := self._section.get(read.sha256)) is not None:
                    await self._out.put(_scored(read.file, read.sha256, known))
                else:
                    self._copies[read.sha256] = [read.file]
                    yield BulkImage(read.sha256, read.data)

    async def _take(self, result: BulkResult[bytes]) -> None:
        found = self._checked(result)
        # What can't be scored today may be with another limit or a newer decoder, and costs little.
        lasting = found.error is None and not found.partial_reason
        if lasting and self._section.put(result.key, found):
            await asyncio.to_thread(self._section.flush)
        for file in self._copies.pop(result.key):
            await self._out.put(_scored(file, result.key, found))

    def _checked(self, result: BulkResult[bytes]) -> CachedScores:
        """What became of an image, as it is kept. Raises OtherModelError."""
        if result.scores is None:
            return CachedScores(error=_file_error(result.error))
        model = result.scores.model
        if (model.name, model.weights_digest) != (
            self._model.model.name,
            self._model.model.weights_digest,
        ):
            raise OtherModelError(
                f"a replica has {model.name} with other weights than the others, or another model"
            )
        return cached_scores(result.scores, len(self._policy.concepts))


def _file_error(error: ScoringError | None) -> FileError:
    if error is None:
        return FileError("", "the service gave no scores")
    return FileError(error.reason, error.message or error.code.name)


def _without_scores(read: ReadFile) -> ScoredFile:
    error = FileError(TOO_LARGE, read.problem) if read.sha256 else None
    return ScoredFile(read.file, read.sha256.hex(), None, problem=read.problem, error=error)


def _scored(file: LabelledFile, sha256: bytes, found: CachedScores) -> ScoredFile:
    error = found.error
    return ScoredFile(
        file,
        sha256.hex(),
        found.similarities,
        found.embeddings,
        partial=found.partial,
        problem="" if error is None else f"{error.message} ({error.reason or 'no reason given'})",
        error=error,
        places=found.places,
        backend=found.backend,
    )


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
