"""One ScoreImages stream as a client sees it: kept full, and left after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

import grpc

from imagesafety.bulk_attempts import Attempt, K, was_not_looked_at
from imagesafety.bulk_pace import Pace
from imagesafety.bulk_requests import BulkOptions, header, requests
from imagesafety.client import accepted
from imagesafety.scores import ImageScores, Limits, image_scores
from imagesafety.scoring_error import ScoringError, error_of_call, error_of_status
from imagesafety.server_status import ServerStatus
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

Call = grpc.aio.StreamStreamCall[scoring_pb2.ScoreImagesRequest, scoring_pb2.ScoreImagesResponse]

_IDLE_SECONDS = 5.0  # without an image, a stream is given back: the service needs its place
# A stream that ends with these before any answer is not as the service wants it: no other would be.
_OURS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


class Listener(Protocol[K]):
    """Who is told what comes of the images on a stream."""

    def scored(self, attempt: Attempt[K], scores: ImageScores, seconds: float) -> None:
        """The image has scores, `seconds` after it was sent."""

    def failed(self, attempt: Attempt[K], error: ScoringError) -> None:
        """The service has no scores for the image."""

    def broke(self, left: Sequence[Attempt[K]], error: ScoringError, *, seen: bool) -> None:
        """The stream ended without answers for these; not `seen`: it never came to be."""

    def fail(self, error: BaseException) -> None:
        """No stream like this can work."""


@dataclass(frozen=True)
class StreamTerms:
    """What holds for a stream: its options, and until when it takes images, as loop's time."""

    options: BulkOptions
    limits: Limits
    until: float
    alone: bool = False  # for a single image


class Stream(Generic[K]):
    """Sends images that wait in `work`, as many as `pace` allows, and tells what came of them."""

    def __init__(
        self,
        work: asyncio.Queue[Attempt[K]],
        pace: Pace,
        terms: StreamTerms,
        listener: Listener[K],
    ) -> None:
        self.fed = asyncio.Event()
        """Set when it takes no further image."""
        self.heard = asyncio.get_running_loop().time()
        """When the service last gave a sign on it, or had nothing to give one for."""
        self.alone = terms.alone
        self._work, self._pace, self._terms, self._listener = work, pace, terms, listener
        self._sent: dict[str, tuple[Attempt[K], float]] = {}
        self._moved = asyncio.Event()  # an image has left, or is to go elsewhere
        self._leaves = self._connected = self._answered = False
        self._given_up: ScoringError | None = None
        self._call: Call | None = None

    @property
    def waits(self) -> bool:
        """Whether there are images on it without an answer."""
        return bool(self._sent)

    async def run(self, stub: scoring_pb2_grpc.ScoringServiceAsyncStub, first: Attempt[K]) -> None:
        """From the header until every image has its answer, or the stream broke."""
        call = self._call = stub.ScoreImages()
        reading = asyncio.create_task(self._read(call, ServerStatus(call)))
        feeding = asyncio.create_task(self._feed(call, first))
        try:
            await asyncio.wait({reading, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            error = await reading
        finally:
            self.fed.set()
            feeding.cancel()
            reading.cancel()
            call.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)
        self._end(error)

    def give_up(self, error: ScoringError) -> None:
        """Ends it with this error."""
        self._given_up = error
        if self._call is not None:
            self._call.cancel()

    async def _feed(self, call: Call, first: Attempt[K]) -> None:
        """Sends; ends quietly when the call is over, whose status tells why."""
        self._send_later(first)
        if not await accepted(call.write(header(self._terms.options))):
            return
        self._connected = True
        attempt: Attempt[K] | None = first
        while attempt is not None:
            for request in requests(attempt, self._terms.limits):
                if not await accepted(call.write(request)):
                    return
            attempt = await self._next()
        self.fed.set()
        await accepted(call.done_writing())

    async def _next(self) -> Attempt[K] | None:
        """The next image to send; None if there is to be none on this stream."""
        loop = asyncio.get_running_loop()
        while not (self._leaves or self._terms.alone):
            now = loop.time()
            if now >= self._terms.until:
                return None
            full = len(self._sent) >= self._pace.images
            if full or now < self._pace.open_at:
                await self._wait_for_room(self._terms.until if full else self._pace.open_at)
                continue
            attempt = await self._take_work(min(self._terms.until, now + _IDLE_SECONDS))
            if attempt is not None:
                self._send_later(attempt)
            return attempt
        return None

    async def _wait_for_room(self, until: float) -> None:
        self._moved.clear()
        try:
            async with asyncio.timeout_at(min(until, self._terms.until)):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def _take_work(self, until: float) -> Attempt[K] | None:
        if not self._work.empty():
            return self._work.get_nowait()
        try:
            async with asyncio.timeout_at(until):
                return await self._work.get()
        except TimeoutError:
            return None

    def _send_later(self, attempt: Attempt[K]) -> None:
        """From here on, this stream answers for the image."""
        now = asyncio.get_running_loop().time()
        if not self._sent:
            self.heard = now
        self._sent[attempt.request_id] = attempt, now

    async def _read(self, call: Call, status: ServerStatus) -> ScoringError | None:
        """Takes the answers; what the stream ended with."""
        try:
            async for response in call:
                self._take(response)
        except grpc.aio.AioRpcError as error:
            return error_of_call(status.of(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            closed = "the connection was closed during the call"
            return self._given_up or ScoringError(grpc.StatusCode.UNAVAILABLE, "", closed)
        return None

    def _take(self, response: scoring_pb2.ScoreImagesResponse) -> None:
        now = asyncio.get_running_loop().time()
        self.heard, self._answered = now, True
        attempt, sent_at = self._sent.pop(response.request_id, (None, 0.0))
        self._moved.set()
        if attempt is None:
            return
        if response.WhichOneof("outcome") == "scores":
            self._pace.scored(now)
            self._listener.scored(attempt, image_scores(response.scores), now - sent_at)
            return
        error = error_of_status(response.error)
        if was_not_looked_at(error):
            self._go_elsewhere(error, now)
        self._listener.failed(attempt, error)

    def _go_elsewhere(self, error: ScoringError, now: float) -> None:
        """The replica has no place for images, or soon will be none."""
        if error.reason == "QUEUE_FULL":
            self._pace.refused(now)
            self._leaves |= self._pace.images == 1
        else:
            self._leaves = True

    def _end(self, error: ScoringError | None) -> None:
        if error is not None and error.code in _OURS and not self._answered:
            self._listener.fail(error)
            return
        now = asyncio.get_running_loop().time()
        if error is not None and error.reason == "QUEUE_FULL":
            self._pace.refused(now)
        elif self._sent:
            self._pace.broke(now)
        if self._sent:
            left = [attempt for attempt, _ in self._sent.values()]
            self._sent.clear()
            message = "the stream ended without the answer"
            error = error or ScoringError(grpc.StatusCode.UNAVAILABLE, "", message)
            self._listener.broke(left, error, seen=self._connected)
