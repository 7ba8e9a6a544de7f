"""The path of one image through the service: decode, batch, encode, compare."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.batcher import Batcher, DeadlinePassedError
from inference.concepts import ConceptCache, ConceptEmbeddings, Definition
from inference.decoder_pool import DecoderPool
from inference.decoding import DecodedMedia, DecodedView
from inference.encoder import Embeddings, EncoderThread
from inference.errors import Reason, ScoringError
from inference.work_queue import Priority, QueueFullError


@dataclass(frozen=True)
class ScoringOptions:
    """What to compare an image with, who goes first, and what is wanted back."""

    concepts: tuple[Definition, ...]
    priority: Priority
    return_embeddings: bool


@dataclass(frozen=True)
class ScoredView:
    """A view with its similarities (C,), and its embedding (D,) if that was asked for."""

    view: DecodedView
    similarities: Embeddings
    embedding: Embeddings | None


@dataclass(frozen=True)
class ScoredImage:
    """The scores of one image."""

    media: DecodedMedia
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
    ) -> None:
        self._decoders = decoders
        self._encoder = encoder
        self._concepts = concepts
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
        self, data: bytes, declared_type: str, options: ScoringOptions, deadline: float
    ) -> ScoredImage:
        """Scores one file; `deadline` is a time of the event loop. Raises ScoringError."""
        media, concepts = await asyncio.gather(
            self._decoders.decode(data, declared_type), self._concepts.embed(options.concepts)
        )
        try:
            embeddings = await asyncio.gather(
                *(
                    self._batcher.submit(view.pixels, priority=options.priority, deadline=deadline)
                    for view in media.views
                )
            )
        except QueueFullError as error:
            raise ScoringError(Reason.QUEUE_FULL, "the queue of the device is full") from error
        except DeadlinePassedError as error:
            message = "the deadline passed while the image was queued"
            raise ScoringError(Reason.DEADLINE_EXCEEDED, message) from error
        views = tuple(
            _scored(view, embedding, concepts, options.return_embeddings)
            for view, embedding in zip(media.views, embeddings, strict=True)
        )
        return ScoredImage(media, views)

    async def _encode(self, pictures: Sequence[bytes]) -> Sequence[Embeddings]:
        return list(await self._encoder.encode_images(pictures))


def _scored(
    view: DecodedView, embedding: Embeddings, concepts: ConceptEmbeddings, keep_embedding: bool
) -> ScoredView:
    similarities = concepts.similarities(embedding)
    if not np.isfinite(similarities).all():
        raise ScoringError(Reason.ENCODER_FAILED, "the model's output is not finite")
    return ScoredView(view, similarities, embedding if keep_embedding else None)
