"""Images that come from a source, on their way to their results over several streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Generic

import grpc

from imagesafety.bulk_attempts import (
    Again,
    Attempt,
    BulkImage,
    BulkResult,
    K,
    after_break,
    after_error,
    after_scores,
)
from imagesafety.bulk_pace import Pace
from imagesafety.bulk_requests import BulkOptions, refusal
from imagesafety.bulk_stream import Stream, StreamTerms
from imagesafety.client import ScoringClient
from imagesafety.closed_at_end import close_source
from imagesafety.room import Room
from imagesafety.scores import ImageScores, Limits
from imagesafety.scoring_error import ScoringError, ServiceUnavailableError

STREAM_IMAGES = 32  # that inference works on at once, of one stream
_STREAM_SECONDS = 30.0  # then another one takes over, on another replica perhaps
_AT_HAND = 32  # images that wait for a stream
_PROBE_SECONDS = 5.0  # of silence, before the service is asked whether it is there
_ALONE = 5  # times as much patience with the only image on a stream
_SLOW = 6  # times what images take on the whole is no silence yet
_LATE_SECONDS = 1.0  # a pause of the event loop, which is no silence of the service


@dataclass(frozen=True)
class BulkTerms:
    """How much is in flight, and how long anything may take."""

    streams: int
    max_bytes: int
    silence_seconds: float
    patience_seconds: float


class BulkRun(Generic[K]):
    """One source of images and the state of all that were taken from it."""

    def __init__(
        self, client: ScoringClient, options: BulkOptions, limits: Limits, terms: BulkTerms
    ) -> None:
        self._client, self._options, self._limits, self._terms = client, options, limits, terms
        self._loop = asyncio.get_running_loop()
        self._room = Room(terms.streams * STREAM_IMAGES + _AT_HAND, terms.max_bytes)
        self._work: asyncio.Queue[Attempt[K]] = asyncio.Queue()
        self._suspects: asyncio.Queue[Attempt[K]] = asyncio.Queue()
        self._results: asyncio.Queue[tuple[BulkResult[K], int] | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[Stream[K]] = set()
        self._unanswered = 0
        self._source_ended = False
        self._failure: BaseException | None = None
        self._heard = self._loop.time()
        self._seconds = 0.0  # that images take, sent to scored
        self._last_error = "nothing was heard of it"

    async def results(
        self, images: AsyncIterable[BulkImage[K]]
    ) -> AsyncGenerator[BulkResult[K], None]:
        """Every image's result. Raises what the source raised, and ServiceUnavailableError."""
        self._spawn(self._read(images))
        self._spawn(self._watch())
        self._spawn(self._try_suspects())
        for _ in range(self._terms.streams):
            self._spawn(self._keep_streaming())
        try:
            while (item := await self._results.get()) is not None:
                result, size = item
                self._room.leave(size)
                yield result
            if self._failure is not None:
                raise self._failure
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends all that runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def scored(self, attempt: Attempt[K], scores: ImageScores, seconds: float) -> None:
        """See Listener."""
        self._heard = self._loop.time()
        self._seconds += 0.05 * (seconds - self._seconds) if self._seconds else seconds
        self._settle(attempt, after_scores(attempt, scores))

    def failed(self, attempt: Attempt[K], error: ScoringError) -> None:
        """See Listener."""
        self._heard = self._loop.time()
        self._settle(attempt, after_error(attempt, error))

    def broke(self, left: Sequence[Attempt[K]], error: ScoringError, *, seen: bool) -> None:
        """See Listener."""
        self._last_error = error.message
        if error.reason:  # a replica says it
            self._heard = self._loop.time()
        for attempt in left:
            alone = attempt.is_suspect
            self._settle(attempt, after_break(attempt, error, alone=alone) if seen else Again())

    def fail(self, error: BaseException) -> None:
        """Ends the run with an error, whatever is in flight."""
        if self._failure is None:
            self._failure = error
        self._results.put_nowait(None)

    async def _read(self, images: AsyncIterable[BulkImage[K]]) -> None:
        """Takes images from the source as there is room."""
        number = 0
        try:
            async for image in images:
                size = len(image.data)
                await self._room.enter(size)
                if not self._unanswered:
                    self._heard = self._loop.time()
                self._unanswered += 1
                number += 1
                attempt = Attempt(str(number), image)
                error = refusal(image, self._limits)
                if error is not None:
                    self._settle(attempt, BulkResult(image.key, error=error))
                else:
                    self._work.put_nowait(attempt)
        except Exception as error:
            self._failure = error  # to be raised when those that came before have their results
        finally:
            await close_source(images)
        self._source_ended = True
        self._end_if_done()

    def _settle(self, attempt: Attempt[K], outcome: BulkResult[K] | Again) -> None:
        if isinstance(outcome, BulkResult):
            self._unanswered -= 1
            self._results.put_nowait((outcome, len(attempt.image.data)))
            self._end_if_done()
            return
        queue = self._suspects if attempt.is_suspect else self._work
        if outcome.pause:
            pause = outcome.pause * random.uniform(0.5, 1.0)  # noqa: S311
            self._loop.call_later(pause, queue.put_nowait, attempt)
        else:
            queue.put_nowait(attempt)

    def _end_if_done(self) -> None:
        if self._source_ended and not self._unanswered:
            self._results.put_nowait(None)

    async def _keep_streaming(self) -> None:
        """One stream after the other; each is left to its last answers when the next begins."""
        pace = Pace(STREAM_IMAGES)
        while True:
            await asyncio.sleep(pace.open_at - self._loop.time())
            attempt = await self._work.get()
            seconds = _STREAM_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311
            stream = self._stream(pace, self._loop.time() + seconds)
            self._spawn(self._run(stream, attempt))
            await stream.fed.wait()

    async def _try_suspects(self) -> None:
        """Images that may be what breaks streams, one at a time."""
        pace = Pace(1)
        while True:
            await asyncio.sleep(pace.open_at - self._loop.time())
            attempt = await self._suspects.get()
            await self._run(self._stream(pace, self._loop.time(), alone=True), attempt)

    def _stream(self, pace: Pace, until: float, *, alone: bool = False) -> Stream[K]:
        terms = StreamTerms(self._options, self._limits, until, alone)
        return Stream(self._work, pace, terms, self)

    async def _run(self, stream: Stream[K], first: Attempt[K]) -> None:
        self._streams.add(stream)
        try:
            with self._client.replicas.stub() as stub:
                await stream.run(stub, first)
        finally:
            self._streams.discard(stream)

    async def _watch(self) -> None:
        """Gives up streams that are silent, and the service if no replica answers."""
        terms = self._terms
        every = min(1.0, terms.silence_seconds / 10, terms.patience_seconds / 10)
        while True:
            planned = self._loop.time() + every
            await asyncio.sleep(every)
            now = self._loop.time()
            if now - planned > _LATE_SECONDS:
                self._excuse(now - planned)
            for stream in self._streams:
                self._give_up_if_silent(stream, now)
            if self._unanswered and now - self._heard > min(
                _PROBE_SECONDS, terms.patience_seconds / 4
            ):
                await self._probe()
                if self._loop.time() - self._heard > terms.patience_seconds:
                    self.fail(ServiceUnavailableError(f"no replica answers: {self._last_error}"))
                    return

    def _excuse(self, seconds: float) -> None:
        """Whoever held the event loop for so long is none of the service."""
        self._heard += seconds
        for stream in self._streams:
            stream.heard += seconds

    def _give_up_if_silent(self, stream: Stream[K], now: float) -> None:
        limit = max(self._terms.silence_seconds, _SLOW * self._seconds)
        limit *= _ALONE if stream.alone else 1
        if stream.waits and now - stream.heard > limit:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            stream.give_up(ScoringError(code, "", f"no answer for {limit:.0f} s"))

    async def _probe(self) -> None:
        """Asks the service whether it is there; a slow image is no outage."""
        seconds = min(_PROBE_SECONDS, self._terms.patience_seconds / 4)
        try:
            await self._client.describe_model(timeout=seconds)
        except ScoringError as error:
            self._last_error = error.message
            await asyncio.sleep(seconds / 5)
        else:
            self._heard = self._loop.time()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)
