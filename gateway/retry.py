"""Whether a call that failed is worth another one, and when. Pure code."""

from __future__ import annotations

import math
from enum import StrEnum

import grpc

from imagesafety.client import ScoringError

PATIENCE_SECONDS = 30.0  # of an outage, after which uploads are not kept waiting for its end
_IN_LONG_OUTAGE = 3  # calls
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds; the first retry needs none
_LEAST_SECONDS = 0.05  # what is left of a deadline, under which a call is not worth its while


class Failure(StrEnum):
    """Why another replica may do what one did not."""

    UNAVAILABLE = "unavailable"
    OVERLOAD = "overload"
    ERROR = "error"


# How often a whole file is sent, for which a replica fails: it may be the file that makes it fail,
# and must not be given to one after the other. A replica without room has not looked at it, and the
# throttle bounds such calls.
_MOST_SENT = {Failure.UNAVAILABLE: 4, Failure.OVERLOAD: math.inf, Failure.ERROR: 2}


def failure_of(error: ScoringError) -> Failure | None:
    """What kept a replica from scoring, if another one may do better; else None."""
    match error.code, error.reason:
        # CANCELLED by the other side: a drain whose time is up.
        case ((grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED), _):
            return Failure.UNAVAILABLE
        # Without a reason: gRPC's own limit on calls at once.
        case grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL" | "":
            return Failure.OVERLOAD
        case grpc.StatusCode.INTERNAL, "ENCODER_FAILED" | "DECODER_KILLED":
            return Failure.ERROR
    return None


def is_sent_often(failure: Failure, times: int) -> bool:
    """Whether a file that was sent so many times is not to be sent again after this."""
    return times >= _MOST_SENT[failure]


def pause_before(attempt: int, spread: float) -> float:
    """Seconds to wait before attempt number `attempt`, which is 2 or more.

    None before the second, because another replica is likely to be well; then twice as long each
    time. `spread`, evenly out of [0, 1), keeps uploads that failed together from coming together.
    """
    if attempt <= 2:
        return 0.0
    pause: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 2))
    return pause * (0.5 + spread)


def is_in_time(seconds_left: float) -> bool:
    """Whether a call with this deadline could meet it."""
    return seconds_left > _LEAST_SECONDS


class Outage:
    """Since when no replica has answered; at first, none ever has."""

    def __init__(self) -> None:
        self._since: float | None = -math.inf

    def unanswered(self, now: float) -> None:
        """A call was UNAVAILABLE."""
        self._since = self._since if self._since is not None else now

    def answered(self) -> None:
        """A replica has said something, be it that it is full."""
        self._since = None

    def ends_hope(self, now: float, calls: int) -> bool:
        """Whether an upload is not to wait on, for which so many calls were made.

        It waits for the end of a restart or a roll-out, until its time is up; but where inference
        is gone for longer, uploads that all take their whole time would harm who waits for them.
        """
        lasts = self._since is not None and now - self._since > PATIENCE_SECONDS
        return lasts and calls >= _IN_LONG_OUTAGE


class RetryThrottle:
    """Keeps retries from multiplying the load of replicas that are all full.

    As gRPC's own (https://github.com/grpc/proposal/blob/master/A6-client-retries.md, "Throttling
    Retry Attempts and Hedged RPCs"): a failure takes a token, a success gives some back, and there
    are retries while over half of the tokens are there.
    """

    def __init__(self, most: float = 50.0, given_back: float = 1.0) -> None:
        """Retries go on while `given_back` / (1 + `given_back`) of the calls fail, or fewer.

        By default that is half of them: with one of two replicas full, and not with all of them.
        """
        self._most, self._given_back = most, given_back
        self._tokens = most

    @property
    def allows(self) -> bool:
        """Whether there may be a retry now."""
        return self._tokens > self._most / 2

    def failed(self) -> None:
        """A replica refused a call because it is full, or was so slow that it was hedged."""
        self._tokens = max(0.0, self._tokens - 1)

    def succeeded(self) -> None:
        """A replica scored."""
        self._tokens = min(self._most, self._tokens + self._given_back)
