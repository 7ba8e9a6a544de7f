"""What becomes of each image, counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from inference.errors import Reason, ScoringError
from inference.load import is_late
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


class ObservedCall:
    """Counts what becomes of the images of one call."""

    def __init__(self, metrics: Metrics, begun: float, deadline: float) -> None:
        """Both are times of time.monotonic()."""
        self._metrics = metrics
        self._begun, self._deadline = begun, deadline

    @contextmanager
    def image(self, begun: float) -> Iterator[None]:
        """Counts the image that the block scores; what it counts as taking is from `begun` on."""
        try:
            yield
        except ScoringError as error:
            self.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.broken_off()
            raise
        except BaseException:
            self._metrics.count_unscored("failed")
            raise
        self._metrics.count_scored(time.monotonic() - begun)

    def failed(self, error: ScoringError) -> None:
        """An image ended with an error."""
        self._metrics.count_unscored(outcome_of(error.reason), error.reason)

    def broken_off(self) -> None:
        """An image ended with its call, which was cancelled."""
        if is_late(self._begun, self._deadline, time.monotonic()):
            self._metrics.count_unscored("refused", Reason.DEADLINE_EXCEEDED)
        else:
            self._metrics.count_unscored("cancelled")
