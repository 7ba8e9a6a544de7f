"""The stretches of time that pages can be asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass

HOUR = 3600 * 1_000_000  # microseconds, as all times in the ledger


@dataclass(frozen=True)
class Period:
    """From `since` to `until`, microseconds since 1970; `name` is what a URL says for it."""

    name: str
    words: str
    since: int
    until: int

    @property
    def hours(self) -> range:
        """The whole hours since 1970 that it touches."""
        return range(self.since // HOUR, self.until // HOUR + 1)


CHOICES = {"24h": ("24 hours", 24), "7d": ("7 days", 168), "30d": ("30 days", 720)}


def period(name: str, default: str = "24h") -> Period:
    """The period that ends now; one of no known name is the default one."""
    name = name if name in CHOICES else default
    words, hours = CHOICES[name]
    until = time.time_ns() // 1000
    # From a full hour on, so that the first bar is as long as the others.
    return Period(name, words, (until // HOUR - hours + 1) * HOUR, until)
