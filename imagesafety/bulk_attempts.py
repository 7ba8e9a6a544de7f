"""What becomes of an image of bulk work whose scores did not come, as plain code.

Errors about the file are its result. Others pass: the image is tried again, after a pause if it was
at fault, perhaps. A stream that breaks makes all of the images on it suspect; one that was on two
of those has a stream of its own from then on, so that it is given up only for what it did alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from imagesafety.scores import ImageScores
from imagesafety.scoring_error import ScoringError

K = TypeVar("K")

_BREAKS_IN_COMPANY = 2  # streams that broke with an image among others before it is on its own
_BREAKS_ALONE = 3
_FAILURES = 4  # answers of the service that it could not score the image
_PARTIAL = 2  # answers that not all of it could be looked at, for a cause that may pass
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
# Said by replicas that did not look at the image.
_UNSEEN = frozenset({"QUEUE_FULL", "DRAINING", "UPLOAD_STALLED"})


@dataclass(frozen=True)
class BulkImage(Generic[K]):
    """An image to be scored, as one file; `key` is what the caller knows it by."""

    key: K
    data: bytes
    media_type: str = ""


@dataclass(frozen=True)
class BulkResult(Generic[K]):
    """What became of an image: `scores`, or the `error` for which there are none."""

    key: K
    scores: ImageScores | None = None
    error: ScoringError | None = None


@dataclass
class Attempt(Generic[K]):
    """An image that has no result yet, and how it fared until now."""

    request_id: str
    image: BulkImage[K]
    breaks: int = 0  # of streams that it was on
    breaks_alone: int = 0  # of those that it was on alone
    failures: int = 0
    partial: ImageScores | None = None  # the last scores of a part of it
    partials: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it is to have a stream of its own."""
        return self.breaks >= _BREAKS_IN_COMPANY


@dataclass(frozen=True)
class Again:
    """The image is to be tried again, after a pause in seconds."""

    pause: float = 0.0


def after_scores(attempt: Attempt[K], scores: ImageScores) -> BulkResult[K] | Again:
    """Scores came; of a part of the file, perhaps, where all of it may be seen another time."""
    if scores.partial_reason and attempt.partials < _PARTIAL:
        attempt.partial = scores
        attempt.partials += 1
        return Again(_pause(attempt.partials))
    return BulkResult(attempt.image.key, scores=scores)


def after_error(attempt: Attempt[K], error: ScoringError) -> BulkResult[K] | Again:
    """The service answered that it has no scores for this image."""
    if not error.may_pass:
        return BulkResult(attempt.image.key, error=error)
    if was_not_looked_at(error):
        return Again()
    attempt.failures += 1
    if attempt.failures < _FAILURES:
        return Again(_pause(attempt.failures))
    return _given_up(attempt, error)


def after_break(attempt: Attempt[K], error: ScoringError, *, alone: bool) -> BulkResult[K] | Again:
    """The stream that the image was sent on ended without an answer for it."""
    if was_not_looked_at(error):
        return Again()
    attempt.breaks += 1
    attempt.breaks_alone += alone
    if attempt.breaks_alone < _BREAKS_ALONE:
        return Again(_pause(attempt.breaks_alone) if alone else 0.0)
    return _given_up(attempt, error)


def was_not_looked_at(error: ScoringError) -> bool:
    """Whether a replica says that it had no place for the image, or no time."""
    return error.reason in _UNSEEN


def _given_up(attempt: Attempt[K], error: ScoringError) -> BulkResult[K]:
    if attempt.partial is not None:
        return BulkResult(attempt.image.key, scores=attempt.partial)
    return BulkResult(attempt.image.key, error=error)


def _pause(times: int) -> float:
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (times - 1))
