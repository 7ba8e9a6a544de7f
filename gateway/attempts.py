"""Has an upload scored: by another replica if one fails, by two if one takes long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Protocol

from gateway.metrics import Metrics
from gateway.retry import (
    Failure,
    Outage,
    RetryThrottle,
    failure_of,
    is_in_time,
    is_sent_often,
    pause_before,
)
from imagesafety.client import ScoringError
from imagesafety.scores import ImageScores

_MOST_CALLS = 3  # at once: the second one may go to the same replica as the first


class Resendable(Protocol):
    """A file that is sent as it comes in, and again while it is kept."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The file from its beginning."""

    @property
    def is_kept(self) -> bool:
        """Whether its beginning is still there."""

    @property
    def times_sent(self) -> int:
        """How often the whole file was sent."""

    @property
    def sent_at(self) -> float | None:
        """The time.monotonic() at which the last of `chunks` was sent, if it was."""


Send = Callable[[AsyncIterator[bytes], float], Coroutine[None, None, ImageScores]]
"""Sends a file to a replica, for so many seconds at most. Raises ScoringError."""


class Attempts:
    """What the calls of all uploads have in common."""

    def __init__(self, metrics: Metrics, *, hedge_after: float = 0.0) -> None:
        """`hedge_after` is in seconds since a file was sent; 0: never."""
        self._metrics = metrics
        self._hedge_after = hedge_after
        self._outage = Outage()
        # One for each client, whose names are in the settings: replicas refuse a client that has
        # too much under way, which must not cost others their retries.
        self._throttles: dict[str, RetryThrottle] = {}

    async def score(
        self, file: Resendable, send: Send, until: float, *, client: str = ""
    ) -> ImageScores:
        """The scores of a client's file by the monotonic time `until`.

        A call that failed for want of a replica, or of room in one, is made again as long as the
        file is kept and there is time; gRPC gives it to one that is well, another one most likely.
        Raises ScoringError, and what `file.chunks` does.
        """
        throttle = self._throttles.setdefault(client, RetryThrottle())
        retried: Failure | None = None
        number = 0
        while True:
            number += 1
            try:
                scores = await self._ask(file, send, until, throttle)
            except ScoringError as error:
                failure = failure_of(error)
                if retried is not None:
                    self._metrics.count_retry(retried, "answered" if failure is None else "failed")
                self._note(failure, throttle)
                if failure is None:
                    raise
                pause = pause_before(number + 1, random.random())  # noqa: S311 - no secret
                objection = self._objection(failure, file, number, until - pause, throttle)
                if objection is not None:
                    self._metrics.count_retry(failure, objection)
                    raise
                retried = failure
                await asyncio.sleep(pause)
                continue
            self._outage.answered()
            throttle.succeeded()
            if retried is not None:
                self._metrics.count_retry(retried, "answered")
            return scores

    def note_answer(self) -> None:
        """Inference has answered, be it to somebody else."""
        self._outage.answered()

    def _note(self, failure: Failure | None, throttle: RetryThrottle) -> None:
        """Remembers of a call that failed what other uploads should know."""
        if failure is Failure.UNAVAILABLE:
            self._outage.unanswered(time.monotonic())
            return
        self._outage.answered()
        if failure is Failure.OVERLOAD:
            throttle.failed()

    def _objection(
        self,
        failure: Failure,
        file: Resendable,
        calls: int,
        until: float,
        throttle: RetryThrottle,
    ) -> str | None:
        """Why there is no further call, by the words of the metric."""
        now = time.monotonic()
        if not file.is_kept:
            return "not_kept"
        if is_sent_often(failure, file.times_sent) or self._outage.ends_hope(now, calls):
            return "given_up"
        if not is_in_time(until - now):
            return "too_late"
        if failure is Failure.OVERLOAD and not throttle.allows:
            return "throttled"
        return None

    async def _ask(
        self, file: Resendable, send: Send, until: float, throttle: RetryThrottle
    ) -> ImageScores:
        """Makes a call, and further ones beside it while there is no answer."""
        begin = time.monotonic()
        if not self._hedge_after:
            return await send(file.chunks(), until - begin)
        first = asyncio.create_task(send(file.chunks(), until - begin))
        calls, begun = {first}, 1
        try:
            while True:
                wait = self._seconds_to_hedge(file, begun, begin) if begun < _MOST_CALLS else None
                done, _ = await asyncio.wait(
                    calls, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                if not done and self._seconds_to_hedge(file, begun, begin) <= 0:
                    begun += 1
                    throttle.failed()  # or hedges would multiply the load of slow replicas
                    if throttle.allows:
                        left = until - time.monotonic()
                        calls.add(asyncio.create_task(send(file.chunks(), left)))
                for call in done:
                    calls.discard(call)
                    if calls and _may_be_made_up_for(call):
                        continue
                    if begun > 1:
                        self._metrics.count_hedge("lost" if call is first else "won")
                    return call.result()
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _seconds_to_hedge(self, file: Resendable, calls: int, begin: float) -> float:
        """How long to wait for an answer before there is one more call than so many.

        `begin` is when the first of them began.
        """
        if file.sent_at is None or not file.is_kept:
            return self._hedge_after
        return max(file.sent_at, begin) + calls * self._hedge_after - time.monotonic()


def _may_be_made_up_for(call: asyncio.Task[ImageScores]) -> bool:
    """Whether a call has failed in a way that the other one may do better."""
    error = call.exception()
    return isinstance(error, ScoringError) and failure_of(error) is not None
