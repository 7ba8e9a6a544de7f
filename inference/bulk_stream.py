"""One ScoreImages stream: images in, in one piece or several, results out as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

from imagesafety.v1 import scoring_pb2
from inference.admission import Admission, ImageBuffer
from inference.errors import Reason, ScoringError
from inference.messages import error_status

ScoreFunction = Callable[[bytes, str], Awaitable[scoring_pb2.ImageScores]]
"""Scores the bytes of a file of a declared type. Raises ScoringError."""


@dataclass(frozen=True)
class _OpenImage:
    """An image of which the last piece has not come. Without a buffer, it has failed already."""

    media_type: str
    place: ExitStack
    buffer: ImageBuffer | None


class BulkStream:
    """The state of one stream."""

    def __init__(self, score: ScoreFunction, admission: Admission, max_images: int) -> None:
        """At most `max_images` are worked on at once, and as many are in pieces at once."""
        self._score = score
        self._admission = admission
        self._max_images = max_images
        self._running = asyncio.Semaphore(max_images)
        self._open: dict[str, _OpenImage] = {}
        self._in_flight: set[str] = set()
        self._results: asyncio.Queue[scoring_pb2.ScoreImagesResponse | None] = asyncio.Queue()

    async def responses(
        self, messages: AsyncIterator[scoring_pb2.ScoreImagesRequest]
    ) -> AsyncIterator[scoring_pb2.ScoreImagesResponse]:
        """Answers every image of the stream. Raises ScoringError for what ends it."""
        reading = asyncio.create_task(self._read(messages))
        reading.add_done_callback(lambda _: self._results.put_nowait(None))
        try:
            while (response := await self._results.get()) is not None:
                yield response
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for image in self._open.values():
                image.place.close()

    async def _read(self, messages: AsyncIterator[scoring_pb2.ScoreImagesRequest]) -> None:
        """Reads to the end and waits for the last result."""
        try:
            async with asyncio.TaskGroup() as tasks:
                async for message in messages:
                    await self._take(message, tasks)
                for request_id in list(self._open):
                    self._fail_open(request_id, Reason.TRUNCATED, "its last piece never came")
        except* ScoringError as errors:
            raise errors.exceptions[0] from None

    async def _take(
        self, message: scoring_pb2.ScoreImagesRequest, tasks: asyncio.TaskGroup
    ) -> None:
        match message.WhichOneof("part"):
            case "image":
                whole = message.image
                if self._begin(whole.request_id, whole.media_type):
                    self._append(whole.request_id, whole.data)
                    await self._finish(whole.request_id, tasks)
            case "chunk":
                chunk = message.chunk
                known = chunk.request_id in self._open
                if known or self._begin(chunk.request_id, chunk.media_type):
                    self._append(chunk.request_id, chunk.data)
                    if chunk.last:
                        await self._finish(chunk.request_id, tasks)
            case "header":
                raise ScoringError(Reason.HEADER_REPEATED, "only the first message may be a header")
            case _:
                self._answer_error("", Reason.INVALID_HEADER, "a message without a part")

    def _begin(self, request_id: str, media_type: str) -> bool:
        """Makes a place for an image; False if there can be none under this name."""
        if not request_id or request_id in self._open or request_id in self._in_flight:
            message = "every image in flight needs a request_id of its own"
            self._answer_error(request_id, Reason.INVALID_HEADER, message)
            return False
        place, buffer = ExitStack(), None
        try:
            if len(self._open) >= self._max_images:
                message = f"over {self._max_images} images in pieces at once"
                raise ScoringError(Reason.QUEUE_FULL, message)
            buffer = place.enter_context(self._admission.image())
        except ScoringError as error:
            self._answer_error(request_id, error.reason, error.message)
        self._open[request_id] = _OpenImage(media_type, place, buffer)
        return True

    def _append(self, request_id: str, data: bytes) -> None:
        image = self._open[request_id]
        if image.buffer is None:
            return
        try:
            image.buffer.append(data)
        except ScoringError as error:
            self._fail_open(request_id, error.reason, error.message)
            # Its further pieces are expected, and dropped.
            self._open[request_id] = _OpenImage(image.media_type, ExitStack(), None)

    async def _finish(self, request_id: str, tasks: asyncio.TaskGroup) -> None:
        """Hands a complete image over; waits while as many as allowed are worked on."""
        image = self._open.pop(request_id)
        if image.buffer is None:
            return
        self._in_flight.add(request_id)
        await self._running.acquire()
        tasks.create_task(self._answer(request_id, image, image.buffer.data()))

    async def _answer(self, request_id: str, image: _OpenImage, data: bytes) -> None:
        try:
            with image.place:
                scores = await self._score(data, image.media_type)
            response = scoring_pb2.ScoreImagesResponse(request_id=request_id, scores=scores)
            self._results.put_nowait(response)
        except ScoringError as error:
            self._answer_error(request_id, error.reason, error.message)
        finally:
            self._in_flight.discard(request_id)
            self._running.release()

    def _fail_open(self, request_id: str, reason: Reason, message: str) -> None:
        image = self._open.pop(request_id)
        image.place.close()
        if image.buffer is not None:
            self._answer_error(request_id, reason, message)

    def _answer_error(self, request_id: str, reason: Reason, message: str) -> None:
        status = error_status(ScoringError(reason, message))
        self._results.put_nowait(
            scoring_pb2.ScoreImagesResponse(request_id=request_id, error=status)
        )
