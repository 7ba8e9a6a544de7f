"""Overrides as a scan applies them: by bytes, and by look as the gateway does. Pure code.

What looks alike is found as Meta recommends to start with: hashes that differ in at most 31 of
256 bits match, and hashes of a quality under 50 are not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from imagesafety.override_list import OverrideEntry
from imagesafety.scores import PerceptualHash

MOST_DISTANCE = 31
LEAST_QUALITY = 50


class Allowances:
    """The entries of a list; `digest` names them."""

    def __init__(self, entries: Sequence[OverrideEntry] = ()) -> None:
        self._by_bytes = {entry.sha256: entry.denies for entry in entries if entry.sha256}
        self._denied = [_bits(entry.pdq) for entry in entries if entry.denies and entry.pdq]
        self._allowed = [
            (_bits(entry.pdq), entry.rule)
            for entry in entries
            if entry.pdq and entry.rule and not entry.denies
        ]
        self.digest = hashlib.sha256(repr(sorted(map(repr, entries))).encode()).hexdigest()

    @property
    def by_look(self) -> bool:
        """Whether any entry is for what looks alike, so that perceptual hashes are needed."""
        return bool(self._denied or self._allowed)

    def denies_bytes(self, sha256: bytes | None) -> bool | None:
        """Whether exactly this file is denied; None if nothing is said of it."""
        return self._by_bytes.get(sha256) if sha256 is not None else None

    def denies_look(self, hashes: Sequence[PerceptualHash]) -> bool:
        """Whether one of its pictures looks like one that is denied."""
        known = [_bits(entry.pdq) for entry in hashes if _usable(entry)]
        return any(_near(bits, denied) for bits in known for denied in self._denied)

    def excepted_rules(self, hashes: Sequence[PerceptualHash], total_frames: int) -> frozenset[str]:
        """The rules whose hits are allowed for what looks like this file, all of it."""
        if not hashes or total_frames > 1 or not all(map(_usable, hashes)):
            return frozenset()
        known = [_bits(entry.pdq) for entry in hashes]
        return frozenset(
            rule for allowed, rule in self._allowed if all(_near(bits, allowed) for bits in known)
        )


def _usable(entry: PerceptualHash) -> bool:
    return entry.quality >= LEAST_QUALITY and len(entry.pdq) == 32


def _bits(pdq: bytes) -> int:
    return int.from_bytes(pdq, "big")


def _near(one: int, other: int) -> bool:
    return (one ^ other).bit_count() <= MOST_DISTANCE
