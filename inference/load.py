"""How much this replica has to do, over the last seconds, as plain code without a clock.

gRPC's weighted_round_robin gives a replica calls by rps / (utilisation + eps / rps × penalty)
(gRFC A58), so that two replicas with the same utilisation are given calls as they answer them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

WINDOW_SECONDS = 2.0
_ALMOST_NONE = 0.01  # a second
_LITTLE = 0.1  # of the time that there was


@dataclass(frozen=True)
class LoadReport:
    """What a replica tells of itself. All 0: there was nothing to answer, nothing is known.

    `utilisation` is `busy` and the seconds of work that wait, so it may be over 1; `scored` are
    images per second that got their answer, `refused` those per second that got none.
    """

    utilisation: float
    scored: float
    refused: float
    busy: float
    waiting_seconds: float


def is_late(begun: float, deadline: float, now: float) -> bool:
    """Whether who cancels now had no time left, rather than no wish for the answer.

    A client resets its call at the deadline, mostly before the server's own.
    """
    return now - begun >= (1 - _LITTLE) * (deadline - begun)


class BusyTime:
    """Which part of the last seconds something was busy: the device, or a number of decoders."""

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        self._changes: deque[tuple[float, float]] = deque([(-window, 0.0)])  # (time, level since)

    def set(self, level: float, now: float) -> None:
        """From now on, `level` of it is busy, from 0 to 1; `now` never goes back."""
        self._forget(now)
        self._changes.append((now, level))

    def mean(self, now: float) -> float:
        """The mean level over the window that ends now."""
        self._forget(now)
        begin, total = now - self._window, 0.0
        times = [max(begin, at) for at, _ in self._changes] + [now]
        for index, (_, level) in enumerate(self._changes):
            total += level * (times[index + 1] - times[index])
        return total / self._window

    def _forget(self, now: float) -> None:
        while len(self._changes) > 1 and self._changes[1][0] <= now - self._window:
            self._changes.popleft()


class _Rate:
    """How often something happened, per second."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._times: deque[float] = deque()

    def count(self, now: float) -> None:
        self._forget(now)
        self._times.append(now)

    def per_second(self, now: float) -> float:
        self._forget(now)
        return len(self._times) / self._window

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()


class Load:
    """What the service tells of every image and answer, and what is reported of that."""

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self.device = BusyTime(window)
        self.decoders = BusyTime(window)
        self._window = window
        self._arrived, self._scored, self._refused = (_Rate(window) for _ in range(3))
        self._here: dict[object, float] = {}  # when the images arrived that have no answer yet

    @contextlib.contextmanager
    def scoring(self, now: float) -> Iterator[None]:
        """The block scores an image, all of which is there at `now`."""
        self._arrived.count(now)
        key = object()
        self._here[key] = now
        try:
            yield
        finally:
            del self._here[key]

    def answered(self, now: float, *, refused: bool = False) -> None:
        """An image has its answer; refused: none of its own fault, it might get one elsewhere."""
        (self._refused if refused else self._scored).count(now)

    def given_up(self, begun: float, deadline: float, now: float) -> None:
        """The client cancelled what was there at `begun`: refused, if it had little time left.

        At its deadline the client resets the call.
        """
        if is_late(begun, deadline, now):
            self.answered(now, refused=True)

    def report(self, now: float, waiting_seconds: float) -> LoadReport:
        """The report; `waiting_seconds` is how long it takes to do what waits."""
        scored, refused = self._scored.per_second(now), self._refused.per_second(now)
        busy = max(self.device.mean(now), self.decoders.mean(now))
        utilisation = busy + waiting_seconds
        if scored == refused == 0:
            oldest = next(iter(self._here.values()), now)
            if now - oldest < self._window:
                return LoadReport(0.0, 0.0, 0.0, busy, waiting_seconds)
            # There was time to answer, but it did not: others should be asked.
            utilisation, refused = max(1.0, utilisation), self._arrived.per_second(now)
        # Refusals are quick. Counted as answers, they would give calls to who refuses the most;
        # and without any answer the client would take the mean weight.
        return LoadReport(
            utilisation=utilisation,
            scored=max(scored, _ALMOST_NONE),
            refused=refused,
            busy=busy,
            waiting_seconds=waiting_seconds,
        )
