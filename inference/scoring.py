"""The path of one image through the service: decode, batch, encode, compare."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference.batcher import Batcher, DeadlinePassedError
from inference.concepts import ConceptCache, ConceptEmbeddings, Definition
from inference.decoder.media import DecodedMedia, Facts, Request, View
from inference.decoder.protocol import MAX_CLOSER
from inference.decoder_pool import DecoderPool
from inference.encoder import Embeddings, EncoderThread
from inference.errors import Reason, ScoringError
from inference.shared_file import SharedFile
from inference.work_queue import Priority, QueueFullError


@dataclass(frozen=True)
class Band:
    """A range of similarities to the concept at this place in the call, ends included."""

    concept: int
    at_least: float
    at_most: float


@dataclass(frozen=True)
class Detail:
    """Whether to look closer: `tiles` per side, 1 for none; with `when`, where a band says so."""

    tiles: int
    when: tuple[Band, ...]

    def asks_for(self, view: ScoredView) -> bool:
        """Whether a view is in one of the bands."""
        return any(
            band.at_least <= view.similarities[band.concept] <= band.at_most for band in self.when
        )


@dataclass(frozen=True)
class ScoringOptions:
    """What to compare an image with, who goes first, what to look at, and what is wanted back."""

    concepts: tuple[Definition, ...]
    priority: Priority
    return_embeddings: bool
    max_frames: int
    detail: Detail


@dataclass(frozen=True)
class ScoredView:
    """A view with its similarities (C,), and its embedding (D,) if that was asked for."""

    view: View
    similarities: Embeddings
    embedding: Embeddings | None


@dataclass(frozen=True)
class ScoredImage:
    """The scores of one image."""

    facts: Facts
    views: tuple[ScoredView, ...]


class Scorer:
    """Scores images. Knows nothing of gRPC."""

    def __init__(
        self,
        decoders: DecoderPool,
        encoder: EncoderThread,
        concepts: ConceptCache,
        *,
        max_batch: int,
        max_queue: int,
        frame_seconds: float,
    ) -> None:
        """`frame_seconds` is for how long frames are decoded to choose from them."""
        self._decoders = decoders
        self._encoder = encoder
        self._concepts = concepts
        self._max_batch = max_batch
        self._frame_seconds = frame_seconds
        self._batcher: Batcher[bytes, Embeddings] = Batcher(
            self._encode, max_batch=max_batch, max_queue=max_queue
        )

    def start(self) -> None:
        """Begins to take work."""
        self._batcher.start()

    async def close(self) -> None:
        """Stops taking work."""
        await self._batcher.close()

    async def score(
        self, file: SharedFile, declared_type: str, options: ScoringOptions, deadline: float
    ) -> ScoredImage:
        """Scores one file; `deadline` is a time of the event loop. Raises ScoringError."""
        detail = options.detail
        request = Request(
            declared_type=declared_type,
            max_frames=options.max_frames,
            frame_seconds=self._frame_seconds,
            tiles=1 if detail.when else detail.tiles,
        )
        embedding = asyncio.ensure_future(self._concepts.embed(options.concepts))
        try:
            facts, views = await self._pass(file, request, embedding, options, deadline)
            closer = tuple(scored.view for scored in views if detail.asks_for(scored))
            if closer and detail.tiles > 1:
                request = replace(request, tiles=detail.tiles, closer=closer[:MAX_CLOSER])
                try:
                    _, tiles = await self._pass(file, request, embedding, options, deadline)
                except ScoringError as error:
                    # What the first look has shown may be enough to decide.
                    partial = f"the closer look failed: {error.message}"
                    return ScoredImage(replace(facts, partial=partial), tuple(views))
                if len(closer) > MAX_CLOSER:
                    facts = replace(facts, partial="too much of it calls for a closer look")
                views = sorted(views + tiles, key=lambda scored: scored.view.frame_time)
        finally:
            embedding.cancel()
            await asyncio.gather(embedding, return_exceptions=True)
        return ScoredImage(facts, tuple(views))

    async def _pass(
        self,
        file: SharedFile,
        request: Request,
        embedding: asyncio.Future[ConceptEmbeddings],
        options: ScoringOptions,
        deadline: float,
    ) -> tuple[Facts, list[ScoredView]]:
        """Decodes the file once and scores the views of that."""
        async with self._decoders.decoded(
            file, request, priority=options.priority, deadline=deadline
        ) as media:
            concepts = await embedding
            try:
                embeddings = await self._embed(media, options.priority, deadline)
            except QueueFullError as error:
                raise ScoringError(Reason.QUEUE_FULL, "the queue of the device is full") from error
            except DeadlinePassedError as error:
                message = "the deadline passed while the image was queued"
                raise ScoringError(Reason.DEADLINE_EXCEEDED, message) from error
            views = [
                _scored(view, row, concepts, options.return_embeddings)
                for view, row in zip(media.views, embeddings, strict=True)
            ]
            return media.facts, views

    async def _embed(
        self, media: DecodedMedia, priority: Priority, deadline: float
    ) -> list[Embeddings]:
        """Embeds all views, of which no more than half a batch is in the queue at once.

        So an animation with many views leaves room for others in every batch.
        """
        room = asyncio.Semaphore(max(1, self._max_batch // 2))

        async def embed(index: int) -> Embeddings:
            async with room:
                pixels = media.pixels[index]
                return await self._batcher.submit(pixels, priority=priority, deadline=deadline)

        tasks = [asyncio.create_task(embed(index)) for index in range(len(media.views))]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _encode(self, pictures: Sequence[bytes]) -> Sequence[Embeddings]:
        return list(await self._encoder.encode_images(pictures))


def _scored(
    view: View, embedding: Embeddings, concepts: ConceptEmbeddings, keep_embedding: bool
) -> ScoredView:
    similarities = concepts.similarities(embedding)
    if not np.isfinite(similarities).all():
        raise ScoringError(Reason.ENCODER_FAILED, "the model's output is not finite")
    return ScoredView(view, similarities, embedding if keep_embedding else None)
