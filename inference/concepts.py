"""Concepts, their embeddings, and the similarities of views to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inference.encoder import Embeddings
from inference.errors import Reason, ScoringError
from inference.metrics import Metrics


@dataclass(frozen=True)
class PromptSet:
    """Wordings of a concept with their weights; at least one, weights over 0."""

    texts: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Probe:
    """A direction in the embedding space, not zero, and a bias."""

    vector: tuple[float, ...]
    bias: float


Definition = PromptSet | Probe


@dataclass(frozen=True)
class ConceptSet:
    """The concepts of a call, in its order."""

    definitions: tuple[Definition, ...]

    @cached_property
    def digest(self) -> str:
        """The same for the same definitions."""
        canonical = [
            [c.texts, c.weights] if isinstance(c, PromptSet) else [c.vector, c.bias]
            for c in self.definitions
        ]
        return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()


@dataclass(frozen=True)
class ConceptEmbeddings:
    """The embeddings of C concepts: `directions` (C, D) of length 1, `biases` (C,)."""

    directions: Embeddings
    biases: Embeddings

    def similarities(self, views: Embeddings) -> Embeddings:
        """Cosines (N, C) of views' embeddings (N, D), with the biases added, in [-1, 1]."""
        values: Embeddings = np.clip(views @ self.directions.T + self.biases, -1.0, 1.0)
        return values


class ConceptCache:
    """Embeds sets of concepts and keeps the most recently used ones, by digest."""

    def __init__(
        self,
        encode_texts: Callable[[Sequence[str]], Awaitable[Embeddings]],
        *,
        max_sets: int,
        text_batch: int,
        metrics: Metrics | None = None,
    ) -> None:
        """`text_batch` is how many prompts go into one forward: images wait no longer than that."""
        self._metrics = metrics or Metrics()
        self._encode_texts = encode_texts
        self._max_sets = max_sets
        self._text_batch = text_batch
        self._sets: OrderedDict[str, asyncio.Task[ConceptEmbeddings]] = OrderedDict()
        # Of all sets that are being encoded, one step at a time is in the device's queue.
        self._step = asyncio.Lock()

    def prefetch(self, concepts: ConceptSet) -> None:
        """Begins to embed the concepts, if that is not done yet. Raises as `embed`."""
        self._metrics.count_concepts(hit=concepts.digest in self._sets)
        self._encoding(concepts)

    async def embed(self, concepts: ConceptSet) -> ConceptEmbeddings:
        """The embeddings of the concepts. Callers that ask for the same set share one encoding.

        Raises ScoringError with QUEUE_FULL while as many sets as are kept are being encoded.
        """
        # One caller's cancellation must not take the encoding away from the others.
        return await asyncio.shield(self._encoding(concepts))

    def _encoding(self, concepts: ConceptSet) -> asyncio.Task[ConceptEmbeddings]:
        digest = concepts.digest
        task = self._sets.get(digest)
        if task is None:
            self._make_room()
            task = asyncio.create_task(self._encode(concepts.definitions))
            self._sets[digest] = task
            task.add_done_callback(lambda done: self._forget_failure(digest, done))
        self._sets.move_to_end(digest)
        return task

    def _make_room(self) -> None:
        if len(self._sets) < self._max_sets:
            return
        oldest = next((digest for digest, task in self._sets.items() if task.done()), None)
        if oldest is None:
            raise ScoringError(Reason.QUEUE_FULL, "too many new concept sets at once")
        del self._sets[oldest]

    def _forget_failure(self, digest: str, task: asyncio.Task[ConceptEmbeddings]) -> None:
        if (task.cancelled() or task.exception()) and self._sets.get(digest) is task:
            del self._sets[digest]

    async def _encode(self, concepts: tuple[Definition, ...]) -> ConceptEmbeddings:
        texts = [text for c in concepts if isinstance(c, PromptSet) for text in c.texts]
        distinct = list(dict.fromkeys(texts))
        encoded: dict[str, Embeddings] = {}
        for start in range(0, len(distinct), self._text_batch):
            some = distinct[start : start + self._text_batch]
            async with self._step:
                encoded.update(zip(some, await self._encode_texts(some), strict=True))
        directions = [_direction(concept, encoded) for concept in concepts]
        if not np.isfinite(directions).all():
            raise ScoringError(Reason.ENCODER_FAILED, "the model failed on the concepts")
        biases = [c.bias if isinstance(c, Probe) else 0.0 for c in concepts]
        return ConceptEmbeddings(np.stack(directions), np.array(biases, np.float32))


def _direction(concept: Definition, encoded: dict[str, Embeddings]) -> Embeddings:
    """A concept's embedding (D,): the weighted mean of its prompts' ones, of length 1."""
    if isinstance(concept, Probe):
        mean = np.array(concept.vector, np.float64)
    else:
        rows = np.stack([encoded[text] for text in concept.texts]).astype(np.float64)
        mean = np.array(concept.weights, np.float64) @ rows
    return (mean / np.linalg.norm(mean)).astype(np.float32)
