"""Whether a call that failed is worth another one, and when. Pure code."""

from __future__ import annotations

from enum import StrEnum

import grpc

from imagesafety.client import ScoringError

MOST_ATTEMPTS = 7
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds; the first retry needs none
_LEAST_SECONDS = 0.05  # what is left of a deadline, under which a call is not worth its while


class Failure(StrEnum):
    """Why another replica may do what one did not."""

    UNAVAILABLE = "unavailable"
    OVERLOAD = "overload"


def failure_of(error: ScoringError) -> Failure | None:
    """What kept a replica from scoring, if another one may do better; else None."""
    match error.code, error.reason:
        # CANCELLED by the other side: a drain whose time is up.
        case ((grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED), _):
            return Failure.UNAVAILABLE
        case grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL" | "":
            return Failure.OVERLOAD
        # Refused because its queue is too long for the deadline; what took too long has no reason.
        case grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED":
            return Failure.OVERLOAD
    return None


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


class RetryThrottle:
    """Keeps retries from multiplying the load of replicas that are all full.

    As gRPC's own (https://github.com/grpc/proposal/blob/master/A6-client-retries.md, "Throttling
    Retry Attempts and Hedged RPCs"): a failure takes a token, a success gives some back, and there
    are retries while over half of the tokens are there.
    """

    def __init__(self, most: float = 20.0, given_back: float = 1.0) -> None:
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
        """A replica refused a call because it is full, or did not answer it."""
        self._tokens = max(0.0, self._tokens - 1)

    def succeeded(self) -> None:
        """A replica scored."""
        self._tokens = min(self._most, self._tokens + self._given_back)
