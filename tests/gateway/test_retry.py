"""When a call is made again."""

import grpc
import pytest

from gateway.retry import (
    PATIENCE_SECONDS,
    Failure,
    Outage,
    RetryThrottle,
    failure_of,
    is_sent_often,
    pause_before,
)
from imagesafety.client import ScoringError

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "failure"),
    [
        (Code.UNAVAILABLE, "", Failure.UNAVAILABLE),
        (Code.UNAVAILABLE, "DRAINING", Failure.UNAVAILABLE),
        (Code.CANCELLED, "", Failure.UNAVAILABLE),
        (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", Failure.OVERLOAD),
        (Code.RESOURCE_EXHAUSTED, "", Failure.OVERLOAD),
        (Code.INTERNAL, "ENCODER_FAILED", Failure.ERROR),
        (Code.INTERNAL, "DECODER_KILLED", Failure.ERROR),
        # What no replica can do in time, and what is the file's fault or ours.
        (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", None),
        (Code.DEADLINE_EXCEEDED, "", None),
        (Code.RESOURCE_EXHAUSTED, "TOO_MANY_BYTES", None),
        (Code.INVALID_ARGUMENT, "UNDECODABLE", None),
        (Code.INTERNAL, "", None),
    ],
)
def test_only_what_another_replica_may_do_better_is_tried_again(
    code: grpc.StatusCode, reason: str, failure: Failure | None
) -> None:
    assert failure_of(ScoringError(code, reason, "")) is failure


def test_the_first_retry_is_at_once_and_further_ones_come_ever_later() -> None:
    assert pause_before(2, 0.9) == 0
    pauses = [pause_before(attempt, 0.5) for attempt in range(3, 20)]
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 1.5
    assert pause_before(4, 0.0) < pause_before(4, 0.99)


def test_a_file_that_replicas_fail_on_is_not_given_to_all_of_them() -> None:
    for failure in (Failure.UNAVAILABLE, Failure.ERROR):
        assert not is_sent_often(failure, 1)
        assert is_sent_often(failure, 4)
    assert is_sent_often(Failure.ERROR, 2)
    assert not is_sent_often(Failure.OVERLOAD, 100)  # nobody has looked at it


def test_a_restart_is_waited_for_and_a_long_outage_is_not() -> None:
    outage = Outage()
    assert outage.ends_hope(0, calls=3)  # nobody was ever there
    assert not outage.ends_hope(0, calls=2)
    outage.answered()
    outage.unanswered(100)
    outage.unanswered(110)
    assert not outage.ends_hope(100 + PATIENCE_SECONDS, calls=50)
    assert outage.ends_hope(101 + PATIENCE_SECONDS, calls=3)
    outage.answered()
    assert not outage.ends_hope(101 + PATIENCE_SECONDS, calls=50)


def answered(throttle: RetryThrottle, refused: int, scored: int, rounds: int = 100) -> bool:
    """Whether retries are allowed after rounds of so many calls that failed and succeeded."""
    for _ in range(rounds):
        for _ in range(refused):
            throttle.failed()
        for _ in range(scored):
            throttle.succeeded()
    return throttle.allows


def test_retries_go_on_while_some_replicas_are_full_and_stop_when_most_are() -> None:
    throttle = RetryThrottle()
    assert throttle.allows
    assert answered(throttle, refused=1, scored=2)
    assert not answered(throttle, refused=2, scored=1)
    assert answered(throttle, refused=0, scored=1)


def test_a_burst_of_failures_is_made_up_for() -> None:
    throttle = RetryThrottle(most=10)
    assert not answered(throttle, refused=1000, scored=0, rounds=1)
    assert answered(throttle, refused=0, scored=6, rounds=1)
