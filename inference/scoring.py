"""The path of one image through the service: decode, batch, encode, compare."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from inference.batch_schedule import DeadlineUnmeetableError
from inference.batcher import Batcher, EncoderFailedError
from inference.concepts import ConceptCache, ConceptSet
from inference.decoder.media import DecodedMedia, Facts, PerceptualHash, Request, View
from inference.decoder.protocol import MAX_CLOSER
from inference.decoder_pool import DecoderPool
from inference.encoder import Embeddings
from inference.errors import REFUSALS, Reason, ScoringError
from inference.shared_file import SharedFile
from inference.work_queue import Priority, QueueFullError
from telemetry.tracing import span


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
    """What to compare an image with, who asks, what to look at, and what is wanted back."""

    concepts: ConceptSet
    priority: Priority
    client: str
    return_embeddings: bool
    max_frames: int
    detail: Detail
    return_hashes: bool


@dataclass
class Stages:
    """For how many seconds an image was decoded and encoded, waiting included, in all passes."""

    decode: float = 0.0
    encode: float = 0.0

    @contextlib.contextmanager
    def timed(self, stage: Literal["decode", "encode"]) -> Iterator[None]:
        """Adds what the block takes to a stage, also if it fails."""
        begun = time.monotonic()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.monotonic() - begun)


@dataclass(frozen=True)
class ScoredView:
    """A view with its similarities (C,), and its embedding (D,) if that was asked for."""

    view: View
    similarities: Embeddings
    embedding: Embeddings | None


@dataclass(frozen=True)
class ScoredImage:
    """The scores of one image, and its perceptual hashes, if they were asked for.

    `passing` is what kept a part of it from being scored this time, if that was not the file.
    """

    facts: Facts
    views: tuple[ScoredView, ...]
    hashes: tuple[PerceptualHash, ...]
    stages: Stages
    passing: Reason | None = None


class Scorer:
    """Scores images. Knows nothing of gRPC."""

    def __init__(
        self,
        decoders: DecoderPool,
        batcher: Batcher,
        concepts: ConceptCache,
        *,
        frame_seconds: float,
    ) -> None:
        """`frame_seconds` is for how long frames are decoded to choose from them."""
        self._decoders = decoders
        self._batcher = batcher
        self._concepts = concepts
        self._frame_seconds = frame_seconds

    def refuse_late(self, options: ScoringOptions, deadline: float) -> None:
        """Looks whether an image that comes now can be done in time, before it costs anything.

        Raises ScoringError with QUEUE_FULL if what is ahead of it takes too long, by estimate. How
        long it takes itself is not known yet.
        """
        if deadline == math.inf:
            return
        ahead = self._decoders.ahead(options.priority, deadline, options.client)
        decode = self._decoders.times(ahead.files)
        # What is ahead at the decoders will be ahead at the device, but for lower priorities.
        views = math.ceil((ahead.files - ahead.lower) * self._decoders.times.views)
        device = self._batcher.wait(
            views + 1, priority=options.priority, deadline=deadline, client=options.client
        )
        left = deadline - asyncio.get_running_loop().time()
        busy = ahead.files > 0 or self._batcher.waiting > 0
        if busy and self._batcher.is_late(max(decode, device), left):
            message = "there is too much to do to score the image in time"
            raise ScoringError(Reason.QUEUE_FULL, message)

    def waiting_seconds(self) -> float:
        """How long it takes to do all that is there now, by estimate."""
        decoders = self._decoders
        views = math.ceil(decoders.files * decoders.times.views)
        return max(decoders.times(decoders.files), self._batcher.backlog(views))

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
            hashes=options.return_hashes,
        )
        stages = Stages()
        self._concepts.prefetch(options.concepts)
        facts, views, hashes = await self._pass(file, request, options, deadline, stages)
        closer = tuple(scored.view for scored in views if detail.asks_for(scored))
        if closer and detail.tiles > 1:
            request = replace(request, tiles=detail.tiles, closer=closer[:MAX_CLOSER], hashes=False)
            try:
                _, tiles, _ = await self._pass(file, request, options, deadline, stages)
            except ScoringError as error:
                # What the first look has shown may be enough to decide.
                facts = replace(facts, partial=f"the closer look failed: {error.message}")
                passing = error.reason if error.reason in REFUSALS else None
                return ScoredImage(facts, tuple(views), hashes, stages, passing)
            if len(closer) > MAX_CLOSER:
                facts = replace(facts, partial="too much of it calls for a closer look")
            views = sorted(views + tiles, key=lambda scored: scored.view.frame_time)
        return ScoredImage(facts, tuple(views), hashes, stages)

    async def _pass(
        self,
        file: SharedFile,
        request: Request,
        options: ScoringOptions,
        deadline: float,
        stages: Stages,
    ) -> tuple[Facts, list[ScoredView], tuple[PerceptualHash, ...]]:
        """Decodes the file once and scores the views of that."""
        async with contextlib.AsyncExitStack() as held:
            with stages.timed("decode"), span("decode"):
                media = await held.enter_async_context(
                    self._decoders.decoded(
                        file,
                        request,
                        priority=options.priority,
                        deadline=deadline,
                        client=options.client,
                    )
                )
            with stages.timed("encode"), span("encode"):
                views = await self._scored(media, options, deadline)
            return media.facts, views, media.hashes

    async def _scored(
        self, media: DecodedMedia, options: ScoringOptions, deadline: float
    ) -> list[ScoredView]:
        """Encodes views and compares them with the concepts."""
        concepts = await self._concepts.embed(options.concepts)
        if not media.views:  # of a closer look at what is too small for one
            return []
        try:
            embeddings = await self._batcher.submit(
                media.pixels,
                priority=options.priority,
                deadline=deadline,
                client=options.client,
            )
        except QueueFullError as error:
            message = str(error) or "the queue of the device is full"
            raise ScoringError(Reason.QUEUE_FULL, message) from error
        except DeadlineUnmeetableError as error:
            message = "the device can't encode the image before the deadline"
            raise ScoringError(Reason.DEADLINE_EXCEEDED, message) from error
        except EncoderFailedError as error:
            message = "the model failed on this image"
            raise ScoringError(Reason.ENCODER_FAILED, message) from error
        similarities = concepts.similarities(embeddings)
        if not np.isfinite(similarities).all():
            message = "the model's output for the concepts is not finite"
            raise ScoringError(Reason.ENCODER_FAILED, message)
        kept = embeddings if options.return_embeddings else [None] * len(embeddings)
        return [ScoredView(*values) for values in zip(media.views, similarities, kept, strict=True)]
