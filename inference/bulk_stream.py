"""One ScoreImages stream: images in, in one piece or several, results out as they finish."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

from imagesafety.v1 import scoring_pb2
from inference.admission import Admission, ImageBuffer, Sender
from inference.errors import Reason, ScoringError
from inference.messages import error_status
from inference.observed_image import ObservedCall
from inference.shared_file import SharedFile

ScoreFunction = Callable[[SharedFile, str], Awaitable[scoring_pb2.ImageScores]]
"""Scores a file of a declared type, and counts what comes of it. Raises ScoringError."""

SLOWEST_BYTES = 32 * 1024  # a second: what comes slower, on the whole, is given up
BROKEN_OFF = "the replica has shut down before this was done"
MAX_NAME_CHARACTERS = 256  # of a request_id or a media type
_IDLE_STREAM = 10  # times what an image may keep us waiting
_CANCEL_SECONDS = 0.1
_LOOK_SECONDS = 1.0  # at most, between looks for what stalls


@dataclass(frozen=True)
class _OpenImage:
    """An image of which the last piece has not come. Without a buffer, it has failed already."""

    media_type: str
    place: ExitStack
    buffer: ImageBuffer | None
    began: float  # `BulkStream._behind` at its first piece


class BulkStream:
    """The state of one stream.

    The stream is read no further while as many images as allowed are worked on, while the service
    has no room for the next one, or while too many answers wait for a client that does not read.
    """

    def __init__(
        self,
        score: ScoreFunction,
        admission: Admission,
        sender: Sender,
        *,
        max_images: int,
        idle_seconds: float,
        observed: ObservedCall,
        draining: Callable[[], bool] = lambda: False,
        broken_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """At most `max_images` are worked on at once, and as many are in pieces at once.

        Those are given up when nothing comes for `idle_seconds`. `observed` is told of each
        image that does not get as far as `score`. The stream ends when there was nothing to do on
        it for ten times `idle_seconds`, or is nothing while the service is `draining`, or is
        `broken_off` whatever there is to do.
        """
        self._broken_off = broken_off
        self._draining = draining
        self._observed = observed
        self._score = score
        self._admission = admission
        self._sender = sender
        self._max_images = max_images
        self._idle_seconds = idle_seconds
        self._listens_since = math.inf  # time since which it waits for a message
        self._behind = 0.0  # seconds that it waited, less those that the bytes are worth
        self._running = asyncio.Semaphore(max_images)
        self._unread = asyncio.Semaphore(2 * max_images)
        self._open: dict[str, _OpenImage] = {}
        self._places: set[ExitStack] = set()
        self._in_flight: set[str] = set()
        self._answers: asyncio.Queue[scoring_pb2.ScoreImagesResponse | None] = asyncio.Queue()

    async def responses(
        self, messages: AsyncIterator[scoring_pb2.ScoreImagesRequest]
    ) -> AsyncIterator[scoring_pb2.ScoreImagesResponse]:
        """Answers every image of the stream. Raises ScoringError for what ends it."""
        reading = asyncio.create_task(self._read(messages))
        reading.add_done_callback(lambda _: self._answers.put_nowait(None))
        try:
            while (response := await self._answers.get()) is not None:
                yield response
                self._unread.release()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for place in self._places:
                self._observed.broken_off()
                place.close()

    async def _read(self, messages: AsyncIterator[scoring_pb2.ScoreImagesRequest]) -> None:
        """Reads to the end and waits for the last result."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._give_up_stalled(tasks))
                self._listens_since = time.monotonic()
                async for message in messages:
                    self._behind += time.monotonic() - self._listens_since
                    came = len(message.chunk.data) + len(message.image.data)
                    self._behind -= came / SLOWEST_BYTES
                    self._listens_since = math.inf
                    await self._take(message, tasks)
                    self._listens_since = time.monotonic()
                watch.cancel()
                if self._open:
                    # To us, a call that is cancelled first looks as if the client had half-closed.
                    await asyncio.sleep(_CANCEL_SECONDS)
                for request_id in list(self._open):
                    error = ScoringError(Reason.TRUNCATED, "its last piece never came")
                    await self._fail_open(request_id, error)
        except* ScoringError as errors:
            raise errors.exceptions[0] from None

    async def _give_up_stalled(self, tasks: asyncio.TaskGroup) -> None:
        """Gives up images in pieces when the client sends nothing; the stream may go on.

        Raises ScoringError for a stream that has nothing to do, which would keep a place for
        nothing, and the service from ending; and for any when the service ends all the same.
        """
        worked = time.monotonic()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._idle_seconds / 10))
            now = time.monotonic()
            if self._broken_off():
                raise ScoringError(Reason.DRAINING, BROKEN_OFF)
            if self._works():
                worked = now
            elif self._draining():
                raise ScoringError(Reason.DRAINING, "the replica is shutting down")
            elif now - max(worked, self._listens_since) > _IDLE_STREAM * self._idle_seconds:
                raise ScoringError(Reason.UPLOAD_STALLED, "no image came for a long time")
            idle = max(0.0, now - self._listens_since)
            for request_id, image in list(self._open.items()):
                slow = self._behind + idle - image.began
                if image.buffer is not None and max(idle, slow) > self._idle_seconds:
                    message = "the rest of the image did not come"
                    error = ScoringError(Reason.UPLOAD_STALLED, message)
                    # Not awaited: the reader must find all of this done, or nothing.
                    self._drop(request_id)
                    self._observed.failed(error)
                    tasks.create_task(self._answer_error(request_id, error))

    def _works(self) -> bool:
        """Whether an image is on its way in or out, or waits for room."""
        is_open = any(image.buffer is not None for image in self._open.values())
        return bool(is_open or self._in_flight or self._listens_since == math.inf)

    async def _take(
        self, message: scoring_pb2.ScoreImagesRequest, tasks: asyncio.TaskGroup
    ) -> None:
        match message.WhichOneof("part"):
            case "image":
                whole = message.image
                if await self._begin(whole.request_id, whole.media_type, len(whole.data)):
                    await self._append(whole.request_id, whole.data)
                    await self._finish(whole.request_id, tasks)
            case "chunk":
                chunk = message.chunk
                size = self._admission.max_image_bytes  # how large it gets, only its end tells
                known = chunk.request_id in self._open
                if known or await self._begin(chunk.request_id, chunk.media_type, size):
                    await self._append(chunk.request_id, chunk.data)
                    if chunk.last:
                        await self._finish(chunk.request_id, tasks)
            case "header":
                raise ScoringError(Reason.HEADER_REPEATED, "only the first message may be a header")
            case _:
                raise ScoringError(Reason.INVALID_HEADER, "a message without a part")

    async def _begin(self, request_id: str, media_type: str, size: int) -> bool:
        """Makes a place for an image; False if there can be none under this name."""
        if max(len(request_id), len(media_type)) > MAX_NAME_CHARACTERS:
            raise ScoringError(
                Reason.INVALID_HEADER, f"a name over {MAX_NAME_CHARACTERS} characters"
            )
        if not request_id or request_id in self._open or request_id in self._in_flight:
            message = "every image in flight needs a request_id of its own"
            await self._refuse(request_id, ScoringError(Reason.INVALID_HEADER, message))
            return False
        if len(self._open) >= self._max_images:
            raise ScoringError(Reason.QUEUE_FULL, f"over {self._max_images} images in pieces")
        size = min(size, self._admission.max_image_bytes)
        if not self._open:  # a place in hand must not wait for another one
            try:
                await self._admission.wait_for_room(self._sender, size)
            except asyncio.CancelledError:
                self._observed.broken_off()
                raise
        place, buffer = ExitStack(), None
        try:
            buffer = place.enter_context(self._admission.image(self._sender, reserve=size))
        except ScoringError as error:
            await self._refuse(request_id, error)
        else:
            self._places.add(place)
        self._open[request_id] = _OpenImage(media_type, place, buffer, self._behind)
        return True

    async def _append(self, request_id: str, data: bytes) -> None:
        image = self._open[request_id]
        if image.buffer is None:
            return
        try:
            image.buffer.append(data)
        except ScoringError as error:
            self._drop(request_id)
            await self._refuse(request_id, error)

    async def _finish(self, request_id: str, tasks: asyncio.TaskGroup) -> None:
        """Hands a complete image over; waits while as many as allowed are worked on."""
        image = self._open.pop(request_id)
        if image.buffer is None:
            self._give_up(image.place)
            return
        file = image.buffer.complete()
        self._in_flight.add(request_id)
        await self._running.acquire()
        tasks.create_task(self._answer(request_id, image, file))

    async def _answer(self, request_id: str, image: _OpenImage, file: SharedFile) -> None:
        try:
            try:
                scores = await self._score(file, image.media_type)
            finally:
                # Before the answer is read: a client that reads nothing keeps no place.
                self._give_up(image.place)
            await self._put(scoring_pb2.ScoreImagesResponse(request_id=request_id, scores=scores))
        except ScoringError as error:
            await self._answer_error(request_id, error)
        finally:
            self._in_flight.discard(request_id)
            self._running.release()

    async def _fail_open(self, request_id: str, error: ScoringError) -> None:
        image = self._open.pop(request_id)
        self._give_up(image.place)
        if image.buffer is not None:
            await self._refuse(request_id, error)

    def _drop(self, request_id: str) -> None:
        """Gives an open image up of which further pieces are expected: they are let by."""
        image = self._open[request_id]
        self._give_up(image.place)
        self._open[request_id] = _OpenImage(image.media_type, ExitStack(), None, self._behind)

    async def _refuse(self, request_id: str, error: ScoringError) -> None:
        """Answers what was not scored."""
        self._observed.failed(error)
        await self._answer_error(request_id, error)

    async def _answer_error(self, request_id: str, error: ScoringError) -> None:
        status = error_status(error)
        await self._put(scoring_pb2.ScoreImagesResponse(request_id=request_id, error=status))

    async def _put(self, response: scoring_pb2.ScoreImagesResponse) -> None:
        await self._unread.acquire()
        self._answers.put_nowait(response)

    def _give_up(self, place: ExitStack) -> None:
        self._places.discard(place)
        place.close()
