# ruff: noqa: D101, D102
"""Stands in for imagesafety.bulk until that is merged: the same interface over single calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from imagesafety.client import ConceptSet, ScoringClient, ScoringError, TlsFiles
from imagesafety.policy import Band
from imagesafety.scores import ImageScores, ModelDescription

K = TypeVar("K")


@dataclass(frozen=True)
class BulkImage(Generic[K]):
    key: K
    data: bytes
    media_type: str = ""


@dataclass(frozen=True)
class BulkResult(Generic[K]):
    key: K
    scores: ImageScores | None
    error: ScoringError | None


@dataclass(frozen=True)
class BulkOptions:
    concepts: ConceptSet
    client: str = ""
    max_frames: int | None = None
    tiles: int = 1
    closer_when: tuple[Band, ...] = ()
    embeddings: bool = False


class BulkScorer:
    def __init__(self, target: str, options: BulkOptions, tls: TlsFiles | None = None) -> None:
        self._client, self._options = ScoringClient(target, tls), options

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def describe_model(self, *, timeout: float) -> ModelDescription:  # noqa: ASYNC109
        return await self._client.describe_model(timeout=timeout)

    async def score(
        self, images: AsyncIterable[BulkImage[K]]
    ) -> AsyncGenerator[BulkResult[K], None]:
        running: set[asyncio.Task[BulkResult[K]]] = set()
        try:
            async for image in images:
                running.add(asyncio.create_task(self._one(image)))
                if len(running) >= 16:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
            for finished in asyncio.as_completed(running):
                yield await finished
        finally:
            for task in running:
                task.cancel()

    async def _one(self, image: BulkImage[K]) -> BulkResult[K]:
        async def chunks() -> AsyncIterator[bytes]:
            yield image.data

        try:
            scores = await self._client.score_image(
                chunks(),
                concepts=self._options.concepts,
                timeout=120,
                media_type=image.media_type,
                max_frames=self._options.max_frames,
                tiles=self._options.tiles,
                closer_when=self._options.closer_when,
                bulk=True,
            )
        except ScoringError as error:
            return BulkResult(image.key, None, error)
        return BulkResult(image.key, scores, None)
