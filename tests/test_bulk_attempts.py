"""What becomes of images without scores, and how much is sent, without any service."""

import grpc
import pytest

from imagesafety.bulk_attempts import (
    Again,
    Attempt,
    BulkImage,
    BulkResult,
    after_break,
    after_error,
)
from imagesafety.bulk_pace import Pace
from imagesafety.scoring_error import ScoringError

LOST = ScoringError(grpc.StatusCode.UNAVAILABLE, "", "connection reset")
FULL = ScoringError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full")


def attempt() -> Attempt[str]:
    return Attempt("1", BulkImage("key", b"data"))


def test_an_image_is_given_up_only_for_streams_that_it_broke_alone() -> None:
    image = attempt()
    for _ in range(20):
        assert isinstance(after_break(image, LOST, alone=False), Again)
    assert image.is_suspect
    outcomes = [after_break(image, LOST, alone=True) for _ in range(3)]
    assert all(isinstance(outcome, Again) for outcome in outcomes[:2])
    assert outcomes[2] == BulkResult("key", error=LOST)


def test_one_broken_stream_makes_no_suspect() -> None:
    """A replica that ends must not cost the others' company."""
    image = attempt()
    after_break(image, LOST, alone=False)
    assert not image.is_suspect


def test_a_full_service_is_no_fault_of_the_image() -> None:
    image = attempt()
    for _ in range(1000):
        assert isinstance(after_error(image, FULL), Again)
        assert isinstance(after_break(image, FULL, alone=True), Again)
    assert not image.is_suspect


def test_pauses_grow() -> None:
    image = attempt()
    failed = ScoringError(grpc.StatusCode.INTERNAL, "ENCODER_FAILED", "failed")
    pauses = []
    while isinstance(outcome := after_error(image, failed), Again):
        pauses.append(outcome.pause)
    assert len(pauses) >= 2
    assert pauses == sorted(set(pauses))


@pytest.mark.parametrize(
    ("code", "reason", "passes"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "DECODER_TIMEOUT", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PIXELS", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", True),
        (grpc.StatusCode.INTERNAL, "DECODER_KILLED", True),
        (grpc.StatusCode.UNAVAILABLE, "", True),
    ],
)
def test_what_may_pass(code: grpc.StatusCode, reason: str, passes: bool) -> None:
    assert ScoringError(code, reason, "").may_pass is passes


def test_a_full_service_gets_half_as_much_after_a_pause() -> None:
    pace = Pace(32)
    pace.refused(now=10.0)
    assert pace.images == 16
    assert pace.open_at > 10.0
    pace.refused(now=10.0)  # another one of the same moment
    assert pace.images == 16


def test_pauses_grow_while_the_service_stays_full_up_to_a_bound() -> None:
    pace, pauses = Pace(32), []
    for _ in range(12):
        now = pace.open_at
        pace.refused(now)
        pauses.append(round(pace.open_at - now, 6))
    assert pace.images == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 10


def test_what_is_scored_brings_the_images_back() -> None:
    pace = Pace(32)
    pace.refused(now=0.0)
    for _ in range(1000):
        pace.scored(now=100.0)
    assert pace.images == 32
    pace.refused(now=100.0)
    again = Pace(32)
    again.refused(now=100.0)
    assert pace.open_at == again.open_at
