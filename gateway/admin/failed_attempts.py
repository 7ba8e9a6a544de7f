"""Counts wrong tokens by address, so that nobody tries many."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network

from gateway.callers import parse_address

MOST_ADDRESSES = 10_000  # remembered; the oldest is forgotten first


class FailedAttempts:
    """Which addresses have failed `most` times within `seconds`."""

    def __init__(
        self,
        most: int = 10,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def retry_after(self, address: str | None) -> int:
        """Seconds until this address may try again; 0 if it may now."""
        times = self._failures.get(_key(address))
        if times is None or len(times) < self._most:
            return 0
        left = times[0] + self._seconds - self._clock()
        return max(0, int(left) + 1) if left > 0 else 0

    def note(self, address: str | None) -> None:
        """Counts a failure."""
        key = _key(address)
        self._failures.setdefault(key, deque(maxlen=self._most)).append(self._clock())
        self._failures.move_to_end(key)
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)


def _key(text: str | None) -> str:
    """One household has one IPv4 address, but 2^64 of IPv6."""
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)
