"""How much a stream of bulk work sends, as plain code: bulk work yields to all other."""

from __future__ import annotations

_GROWTH = 0.25  # images more in flight for each that was scored
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Pace:
    """Images in flight on a stream, and pauses: half as many for a service that is full."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._images = float(most)
        self._pause = 0.0
        self.open_at = 0.0
        """Before this time nothing is to be sent."""

    @property
    def images(self) -> int:
        """How many may be in flight."""
        return max(1, int(self._images))

    def scored(self, now: float) -> None:
        """An image was scored."""
        self._images = min(self._most, self._images + _GROWTH)
        if now >= self.open_at:
            self._pause = 0.0

    def refused(self, now: float) -> None:
        """The service was full. What it refuses during the pause, it refuses for the same cause."""
        if now < self.open_at:
            return
        self._images = max(1.0, self._images / 2)
        self._slow_down(now)

    def broke(self, now: float) -> None:
        """A stream broke, or there was none to be had."""
        if now >= self.open_at:
            self._slow_down(now)

    def _slow_down(self, now: float) -> None:
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self.open_at = now + self._pause
