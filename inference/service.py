"""`ScoringService`: what scoring.proto promises, in terms of `inference.scoring`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn, TypeVar

import grpc

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from inference.admission import Admission, ImageBuffer, Sender
from inference.bulk_stream import BROKEN_OFF, SLOWEST_BYTES, BulkStream
from inference.embedding_access import EmbeddingsSetting, may_have_embeddings
from inference.encoder import ModelDescription
from inference.errors import REFUSALS, Reason, ScoringError
from inference.load import Load
from inference.messages import (
    STATUS_CODES,
    error_status,
    image_scores,
    model_identity,
    parse_options,
)
from inference.metrics import Metrics
from inference.observed_image import ObservedCall
from inference.scoring import Scorer, ScoringOptions
from inference.shared_file import SharedFile
from inference.work_queue import Priority
from telemetry.tracing import recorded_span, server_span

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
MessageT = TypeVar("MessageT", scoring_pb2.ScoreImageRequest, scoring_pb2.ScoreImagesRequest)

_KEPT_OPTIONS, _KEPT_BYTES = 64, 128 * 1024  # how many, and up to which size: 32 probes or more

log = logging.getLogger("inference")


class ScoringService(scoring_pb2_grpc.ScoringServiceServicer):
    """The gRPC service."""

    def __init__(
        self,
        scorer: Scorer,
        admission: Admission,
        model: ModelDescription,
        limits: scoring_pb2.Limits,
        *,
        stream_images: int,
        max_streams: int,
        idle_seconds: float,
        metrics: Metrics,
        load: Load | None = None,
        embeddings: EmbeddingsSetting = "auto",
    ) -> None:
        """At most `max_streams` of ScoreImages are open; `load` is told of every answer.

        `embeddings` says which clients get those.
        """
        self._embeddings = embeddings
        self._metrics = metrics
        self._scorer = scorer
        self._admission = admission
        self._model = model
        self._limits = limits
        self._stream_images = stream_images
        self._idle_seconds = idle_seconds
        self._identity = model_identity(model)

        @functools.lru_cache(maxsize=_KEPT_OPTIONS)
        def parsed(options: bytes, default: Priority) -> ScoringOptions:
            message = scoring_pb2.ScoringOptions.FromString(options)
            return parse_options(message, limits, model.embedding_width, default)

        self._parsed = parsed
        self._load = load or Load()
        self._draining = False
        self._broken_off = False
        self._patience: set[asyncio.Timeout] = set()  # with each ScoreImage call
        self._max_streams = max_streams
        self._streams = 0
        self.calls = 0
        """How many calls bring images, or wait for their scores."""

    def drain(self) -> None:
        """From now on, refuses the images that streams still bring."""
        self._draining = True

    def break_off(self) -> None:
        """Ends the calls that are still running, as something to be tried elsewhere."""
        self._broken_off = True
        for limit in self._patience:
            limit.reschedule(asyncio.get_running_loop().time())

    async def DescribeModel(  # noqa: N802
        self,
        request: scoring_pb2.DescribeModelRequest,
        context: grpc.aio.ServicerContext[
            scoring_pb2.DescribeModelRequest, scoring_pb2.DescribeModelResponse
        ],
    ) -> scoring_pb2.DescribeModelResponse:
        """See scoring.proto."""
        spec = self._model.preprocessing
        return scoring_pb2.DescribeModelResponse(
            model=self._identity,
            input_width=spec.width,
            input_height=spec.height,
            embedding_width=self._model.embedding_width,
            limits=self._limits,
        )

    async def ScoreImage(  # noqa: N802
        self,
        request_iterator: AsyncIterator[scoring_pb2.ScoreImageRequest],
        context: grpc.aio.ServicerContext[
            scoring_pb2.ScoreImageRequest, scoring_pb2.ScoreImageResponse
        ],
    ) -> scoring_pb2.ScoreImageResponse:
        """See scoring.proto."""
        begun, deadline = time.monotonic(), _deadline(context)
        try:
            with (
                ObservedCall(self._metrics, begun, deadline).image(begun),
                server_span("ScoreImage", _headers(context)),
                self._running(),
                self._counted(),
            ):
                async with self._until_broken_off():
                    scores = await self._score_call(request_iterator, begun, deadline, context)
        except ScoringError as error:
            await _abort(context, error)
        return scoring_pb2.ScoreImageResponse(scores=scores)

    async def ScoreImages(  # noqa: N802
        self,
        request_iterator: AsyncIterator[scoring_pb2.ScoreImagesRequest],
        context: grpc.aio.ServicerContext[
            scoring_pb2.ScoreImagesRequest, scoring_pb2.ScoreImagesResponse
        ],
    ) -> AsyncIterator[scoring_pb2.ScoreImagesResponse]:
        """See scoring.proto."""
        try:
            with self._running(), self._stream():
                header = (await self._first(request_iterator)).header
                options = self._options(header.options, Priority.BULK)
                self._refuse_embeddings(options, context)
                deadline, headers = _deadline(context), _headers(context)
                observed = ObservedCall(self._metrics, time.monotonic(), deadline)

                async def score(file: SharedFile, media_type: str) -> scoring_pb2.ImageScores:
                    with (
                        observed.image(time.monotonic()),
                        server_span("ScoreImages", headers),
                        self._counted(),
                    ):
                        if self._draining:
                            raise ScoringError(Reason.DRAINING, "the replica is shutting down")
                        return await self._score(file, media_type, options, deadline)

                stream = BulkStream(
                    score,
                    self._admission,
                    _sender(options),
                    max_images=self._stream_images,
                    idle_seconds=self._idle_seconds,
                    observed=observed,
                    draining=lambda: self._draining,
                    broken_off=lambda: self._broken_off,
                )
                async for response in stream.responses(request_iterator):
                    yield response
        except ScoringError as error:
            await _abort(context, error)

    async def _score_call(
        self,
        messages: AsyncIterator[scoring_pb2.ScoreImageRequest],
        begun: float,
        deadline: float,
        context: grpc.aio.ServicerContext[RequestT, ResponseT],
    ) -> scoring_pb2.ImageScores:
        """Takes the image of a ScoreImage call in and scores it. Raises ScoringError."""
        with self._admission.arriving():
            header = (await self._first(messages)).header
        options = self._options(header.options, Priority.INTERACTIVE)
        self._refuse_embeddings(options, context)
        self._scorer.refuse_late(options, deadline)
        with self._admission.image(_sender(options)) as buffer:
            await self._receive(messages, buffer)
            file = buffer.complete()
            self._metrics.observe_stage("receive", time.monotonic() - begun)
            self._scorer.refuse_late(options, deadline)
            return await self._score(file, header.media_type, options, deadline)

    def _refuse_embeddings(
        self,
        options: ScoringOptions,
        context: grpc.aio.ServicerContext[RequestT, ResponseT],
    ) -> None:
        """Raises ScoringError if a client asks for embeddings that may not have them."""
        if not options.return_embeddings:
            return
        if not may_have_embeddings(self._embeddings, context.peer(), context.auth_context()):
            message = "the service gives this client no embeddings (its setting `embeddings`)"
            raise ScoringError(Reason.EMBEDDINGS_NOT_ALLOWED, message)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    @contextlib.asynccontextmanager
    async def _until_broken_off(self) -> AsyncIterator[None]:
        """Raises ScoringError in the block when `break_off` is called."""
        limit = asyncio.timeout(0 if self._broken_off else None)
        self._patience.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ScoringError(Reason.DRAINING, BROKEN_OFF) from None
        finally:
            self._patience.discard(limit)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """A place for a ScoreImages stream, whether it has images or not. Raises ScoringError."""
        if self._streams >= self._max_streams:
            raise ScoringError(Reason.QUEUE_FULL, "the service has as many streams as it takes")
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Tells the load of the answer that an image gets."""
        loop = asyncio.get_running_loop()
        try:
            yield
        except ScoringError as error:
            self._load.answered(loop.time(), refused=error.reason in REFUSALS)
            raise
        self._load.answered(loop.time())

    @contextlib.contextmanager
    def _awaited(self, deadline: float) -> Iterator[None]:
        """Tells the load of an image that is there, and if its client gives it up."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            with self._load.scoring(begun):
                yield
        except asyncio.CancelledError:
            self._load.given_up(begun, deadline, loop.time())
            raise

    async def _first(self, messages: AsyncIterator[MessageT]) -> MessageT:
        """The first message of a call, which has to be a header. Raises ScoringError."""
        try:
            async with asyncio.timeout(self._idle_seconds):
                first = await anext(messages, None)
        except TimeoutError:
            raise ScoringError(Reason.UPLOAD_STALLED, "the header did not come") from None
        if first is None or first.WhichOneof("part") != "header":
            raise ScoringError(Reason.HEADER_MISSING, "the first message must be the header")
        return first

    async def _receive(
        self, messages: AsyncIterator[scoring_pb2.ScoreImageRequest], buffer: ImageBuffer
    ) -> None:
        """Takes an image's bytes in. Raises ScoringError."""
        loop = asyncio.get_running_loop()
        slowest = loop.time() + self._idle_seconds
        try:
            async with asyncio.timeout_at(slowest) as limit:
                async for message in messages:
                    chunk = _chunk(message)
                    buffer.append(chunk)
                    slowest += len(chunk) / SLOWEST_BYTES
                    limit.reschedule(min(loop.time() + self._idle_seconds, slowest))
        except TimeoutError:
            raise ScoringError(
                Reason.UPLOAD_STALLED, "the rest of the image did not come"
            ) from None

    def _options(self, options: scoring_pb2.ScoringOptions, default: Priority) -> ScoringOptions:
        # Clients send the same ones with every image, and reading them takes longer than the rest.
        content = options.SerializeToString()
        parsed = self._parsed if len(content) <= _KEPT_BYTES else self._parsed.__wrapped__
        return parsed(content, default)

    async def _score(
        self, file: SharedFile, media_type: str, options: ScoringOptions, deadline: float
    ) -> scoring_pb2.ImageScores:
        if (current := recorded_span()) is not None:
            current.set_attributes(
                {
                    "imagesafety.media_type": media_type,
                    "imagesafety.bytes": len(file),
                    "imagesafety.priority": options.priority.name.lower(),
                    "imagesafety.backend": self._model.backend,
                }
            )
        try:
            with self._awaited(deadline):
                scored = await self._scorer.score(file, media_type, options, deadline)
            return image_scores(scored, self._identity)
        except ScoringError:
            raise
        except Exception as error:
            log.exception("scoring failed")
            raise ScoringError(Reason.ENCODER_FAILED, "the model failed on this image") from error


def _sender(options: ScoringOptions) -> Sender:
    return Sender(options.client, options.priority is Priority.BULK)


def _chunk(message: scoring_pb2.ScoreImageRequest) -> bytes:
    if message.WhichOneof("part") == "header":
        raise ScoringError(Reason.HEADER_REPEATED, "only the first message may be a header")
    return message.chunk


def _deadline(context: grpc.aio.ServicerContext[RequestT, ResponseT]) -> float:
    """The call's deadline as a time of the event loop; without one, the end of time."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else asyncio.get_running_loop().time() + remaining


def _headers(
    context: grpc.aio.ServicerContext[RequestT, ResponseT],
) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in context.invocation_metadata() or ())


async def _abort(
    context: grpc.aio.ServicerContext[RequestT, ResponseT], error: ScoringError
) -> NoReturn:
    details = error_status(error).SerializeToString()
    await context.abort(
        STATUS_CODES[error.reason],
        error.message,
        trailing_metadata=(("grpc-status-details-bin", details),),
    )
