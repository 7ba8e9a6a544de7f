"""The time of a batch of each size, as measured; plain code without a clock."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping

_NEWEST = 0.2  # weight of the newest batch in the moving average
_MOST = 2.0  # how far one batch may be off before it counts as no more than that
_AGREE = 3  # so many batches in a row that are off the same way count in full
_LEAST = 0.01  # of what was measured: no batch counts as faster
_FORGOTTEN = 0.02  # of a slowdown, with every batch that was refused because of it
_ENOUGH = 0.95  # of the best rate: as much counts as about as fast
_SIMILAR = 2.0  # times as long, at most, took two batches that were measured on one machine
LONGEST_SECONDS = 1.0
"""The most that one batch should take, where there is a choice: later jobs wait for it."""


class BatchTimes:
    """Seconds by batch size: a table measured at the start, and by how much it is slower now.

    What slows a machine down slows all sizes alike; so what is learnt from batches of one size
    holds for the others too.
    """

    def __init__(self, measured: Mapping[int, float], overlap: int = 1) -> None:
        """`measured` has seconds for one size at least; `overlap` batches run at once."""
        self._overlap = overlap
        self.replace(measured)

    def replace(self, measured: Mapping[int, float]) -> None:
        """Take another table in place of the one that there was and what was learnt since."""
        self._sizes = sorted(measured)
        self._seconds = [measured[size] for size in self._sizes]
        self._slowdown = 1.0
        self._newest: deque[float] = deque(maxlen=_AGREE)  # the slowdowns of the last batches
        self._expected, self._took, self._ended = 0.0, 0.0, 0  # since something was learnt

    def __call__(self, size: int) -> float:
        """Seconds that a batch of `size` takes; between and beyond what was measured, linear."""
        return self._measured(size) * self._slowdown

    def of_many(self, views: int, max_batch: int) -> float:
        """Seconds that it takes at least to encode `views` views with nothing else."""
        full, rest = divmod(views, max_batch)
        return full * self(max_batch) + (self(rest) if rest else 0.0)

    def observe(self, size: int, seconds: float) -> None:
        """Learns from a batch that took `seconds`, or came so long after the one before it."""
        self._expected += self._measured(size)
        self._took += seconds
        self._ended += 1
        if self._ended < self._overlap:
            return
        # Batches that overlap may end together; only over as many is it known what each took.
        expected, seconds = self._expected, self._took
        self._expected, self._took, self._ended = 0.0, 0.0, 0
        if expected <= 0:
            return
        slowdown = max(_LEAST, seconds / expected)
        self._newest.append(slowdown)
        # One batch that hung must not have everything refused that comes after it.
        off = min(_MOST, max(1 / _MOST, slowdown / self._slowdown))
        self._slowdown *= 1 + _NEWEST * (off - 1)
        if len(self._newest) == _AGREE:  # what all of them say is no accident
            self._slowdown = min(max(self._slowdown, min(self._newest)), max(self._newest))

    def doubt(self, needed: float, left: float) -> None:
        """Something was refused that needed more seconds, by this, than were left.

        An estimate that is too high must not be kept up by refusing what would correct it. To be
        called only where nothing else will: else it would be forgotten faster than it is learnt.
        """
        if needed <= left * self._slowdown:  # there would be time, were it not for the slowdown
            self._slowdown += _FORGOTTEN * (min(1.0, self._slowdown) - self._slowdown)

    def _measured(self, size: int) -> float:
        sizes, seconds = self._sizes, self._seconds
        if len(sizes) == 1:
            return seconds[0] * size / sizes[0]
        above = min(max(bisect_left(sizes, size), 1), len(sizes) - 1)
        share = (size - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
        return max(0.0, seconds[above - 1] + share * (seconds[above] - seconds[above - 1]))


def calmer(earlier: Mapping[int, float], newest: Mapping[int, float]) -> dict[int, float]:
    """The less disturbed times of two measurements of one model.

    Whatever else the machine does can only make a batch look slower. But what is off from the
    newest by more than a factor of two the other way was not measured on a machine like this.
    """
    expected = BatchTimes(newest)
    times = dict(newest)
    for size, seconds in earlier.items():
        if size in newest:
            if seconds * _SIMILAR >= newest[size]:
                times[size] = min(seconds, newest[size])
        elif expected(size) <= seconds * _SIMILAR and seconds <= expected(size) * _SIMILAR:
            times[size] = seconds
    return times


def worthwhile_size(measured: Mapping[int, float], overlap: int = 1) -> int:
    """The largest batch that is about as fast, by the view, as any that keeps nobody waiting long.

    Batches only get large when much waits, and then the device does more beside its other work if
    they are: with 2 cores, a service does a tenth more with 16 than with 4, where the encoder alone
    is as fast with both.
    """
    # As many as overlap are under way at once, and each takes as many times longer.
    short = {size: s for size, s in measured.items() if s * overlap <= LONGEST_SECONDS}
    return max(_about_as_fast(short or {min(measured): measured[min(measured)]}))


def shortest_size(measured: Mapping[int, float], max_batch: int) -> int:
    """The smallest batch that is about as fast, by the view, as any up to `max_batch`."""
    allowed = {size: seconds for size, seconds in measured.items() if size <= max_batch}
    return min(_about_as_fast(allowed), default=max_batch)


def _about_as_fast(measured: Mapping[int, float]) -> list[int]:
    """The sizes that are about as fast, by the view, as the best of them."""
    best = min((seconds / size for size, seconds in measured.items()), default=0.0)
    return [size for size, seconds in measured.items() if seconds / size * _ENOUGH <= best]
