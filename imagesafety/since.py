"""How far back to look: `30m`, `12h`, `7d`, `4w`."""

from __future__ import annotations

import re

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DIGITS = r"[0-9]{1,18}"  # databases keep times in 64 bits


def parse_period(text: str) -> int:
    """The microseconds that a number with m, h, d or w means. Raises ValueError."""
    match = re.fullmatch(rf"({_DIGITS})([mhdw])", text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no time to look back, such as 30m, 12h, 7d or 4w")
    return int(match[1]) * _SECONDS[match[2]] * 1_000_000


def parse_since(text: str, now: int) -> int:
    """The time that `text` names, in microseconds since 1970 like `now`.

    `text` is a period before `now`, or such a time itself. Raises ValueError.
    """
    if re.fullmatch(_DIGITS, text):
        return int(text)
    return max(0, now - parse_period(text))
