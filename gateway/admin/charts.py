"""Where the marks of charts go, in units of an SVG's view box. Pure code; templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.admin.periods import HOUR

STRIP_WIDTH, STRIP_HEIGHT = 720, 56


@dataclass(frozen=True)
class Bar:
    """A bar of a strip, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Strip:
    """One series over time, on a scale of its own: rejects would not show beside the accepted."""

    name: str
    total: int
    most: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Tick:
    """A place on the time axis and its name."""

    x: float
    words: str


def strip(name: str, hours: range, counts: Sequence[int]) -> Strip:
    """The bars of one series."""
    most = max(counts, default=0)
    top, step = nice_ceiling(most), STRIP_WIDTH / max(1, len(hours))
    bars = tuple(
        Bar(
            x=round(index * step + step * 0.1, 2),
            # One of ten thousand has to be seen.
            y=round(STRIP_HEIGHT - (height := max(2.0, STRIP_HEIGHT * count / top)), 2),
            width=round(step * 0.8, 2),
            height=round(height, 2),
            words=f"{hour_words(hour)}: {count} {name}",
        )
        for index, (hour, count) in enumerate(zip(hours, counts, strict=True))
        if count
    )
    return Strip(name, sum(counts), most, bars)


def ticks(hours: range) -> list[Tick]:
    """Names of hours, or of days where there are many hours."""
    step = STRIP_WIDTH / max(1, len(hours))
    by_hour = len(hours) <= 48
    days = 1 if len(hours) <= 200 else 5
    found = []
    for index, hour in enumerate(hours):
        time = _time(hour)
        if by_hour and time.hour % 6 == 0:
            found.append(Tick(round(index * step, 2), time.strftime("%H:%M")))
        elif not by_hour and time.hour == 0 and (hour // 24) % days == 0:
            found.append(Tick(round(index * step, 2), time.strftime("%d %b")))
    return [tick for tick in found if tick.x < STRIP_WIDTH - 30]


def hour_words(hour: int) -> str:
    """An hour since 1970, such as "2026-01-31 14:00"."""
    return _time(hour).strftime("%Y-%m-%d %H:00")


def nice_ceiling(value: float) -> float:
    """The next 1, 2, 5 × 10ⁿ at or over a value; 1 at least."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR / 1e6, UTC)


@dataclass(frozen=True)
class Scale:
    """From similarities, or milliseconds, to places on a bar of this width."""

    low: float
    high: float
    width: float = 300.0

    def x(self, value: float) -> float:
        """The place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.width * min(1.0, max(0.0, share)), 2)

    @property
    def zero(self) -> float:
        """The place of zero, where bars begin."""
        return self.x(0.0)

    def start(self, value: float) -> float:
        """Where the bar of a value begins on the left."""
        return min(self.zero, self.x(value))

    def length(self, value: float) -> float:
        """How long the bar of a value is."""
        return round(abs(self.x(value) - self.zero), 2)
