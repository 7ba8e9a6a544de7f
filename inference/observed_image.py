"""What becomes of one image, counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from inference.errors import Reason, ScoringError
from inference.messages import STATUS_CODES
from inference.metrics import Metrics, Outcome

# With these, the image was all right or at least not looked at; with the others, it or we failed.
_REFUSED = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
)


def outcome_of(reason: Reason) -> Outcome:
    """Whether a reason refuses an image, or is a failure on it."""
    return "refused" if STATUS_CODES[reason] in _REFUSED else "failed"


@contextmanager
def observed_image(metrics: Metrics, begun: float) -> Iterator[None]:
    """Counts the image that the block scores; its call began at the time.monotonic() `begun`."""
    try:
        yield
    except ScoringError as error:
        metrics.count_unscored(outcome_of(error.reason), error.reason)
        raise
    except asyncio.CancelledError:
        metrics.count_unscored("cancelled")
        raise
    metrics.count_scored(time.monotonic() - begun)
