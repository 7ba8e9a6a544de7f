"""Overrides, and which of them a file falls under. Pure code.

What looks alike is found as Meta recommends to start with: hashes that differ in at most 31 of
256 bits match, and hashes of a quality under 50 are not used
(https://github.com/facebook/ThreatExchange/blob/main/pdq/README.md, "Matching").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.overrides.perceptual_index import HASH_BYTES, WITHIN_BITS, PerceptualIndex
from imagesafety.scores import PerceptualHash

MOST_DISTANCE = WITHIN_BITS
LEAST_QUALITY = 50


class OverrideAction(StrEnum):
    """What an administrator has said of a file."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Override:
    """An entry: by SHA-256, by PDQ (what looks alike), or by both; 32 bytes each.

    `rule` names the rule whose hits a perceptual allow overrules; no other's. `at` is in
    microseconds since 1970, UTC; `decision_id` names the decision that the entry was made from.
    """

    id: str
    action: OverrideAction
    sha256: bytes | None
    pdq: bytes | None
    rule: str | None
    note: str
    who: str
    at: int
    decision_id: str | None = None

    @property
    def perceptual(self) -> bool:
        """Whether it is for what looks alike, too."""
        return self.pdq is not None and (
            self.action is OverrideAction.DENY or self.rule is not None
        )


@dataclass(frozen=True, slots=True)
class Alike:
    """The perceptual entries that a file falls under."""

    deny: Override | None = None
    allows: tuple[Override, ...] = ()


class OverrideSet:
    """All overrides, as they are at one time. Immutable."""

    def __init__(self, entries: Iterable[Override] = ()) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._by_bytes = _by_bytes(self._entries.values())
        self._denies = PerceptualIndex(_looks(self._entries.values(), OverrideAction.DENY))
        self._allows = PerceptualIndex(_looks(self._entries.values(), OverrideAction.ALLOW))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def has_looks(self) -> bool:
        """Whether any entry is for what looks alike."""
        return bool(self._denies) or bool(self._allows)

    @property
    def entries(self) -> Sequence[Override]:
        """All entries, in the order in which they came."""
        return tuple(self._entries.values())

    def get(self, id: str) -> Override | None:  # noqa: A002 - what it is called everywhere
        """The entry with this id."""
        return self._entries.get(id)

    def search(self, text: str) -> Sequence[Override]:
        """The entries that have this in a text, or in a hash in hexadecimal; in any case."""
        wanted = text.strip().casefold()
        return [entry for entry in self._entries.values() if wanted in _texts(entry)]

    def changed(self, added: Sequence[Override], removed: Iterable[str]) -> OverrideSet:
        """The set without the entries whose ids are `removed`, and then with `added`.

        Far cheaper than a new set, if there are few changes to many entries.
        """
        gone = {*removed, *(entry.id for entry in added)}
        result = OverrideSet()
        result._entries, result._by_bytes = dict(self._entries), dict(self._by_bytes)
        for key in gone:
            entry = result._entries.pop(key, None)
            if entry is not None and entry.sha256 is not None:
                result._by_bytes.pop(entry.sha256, None)
        result._entries |= {entry.id: entry for entry in added}
        result._by_bytes |= _by_bytes(added)
        result._denies = self._denies.changed(_looks(added, OverrideAction.DENY), gone)
        result._allows = self._allows.changed(_looks(added, OverrideAction.ALLOW), gone)
        return result

    def exact(self, sha256: bytes) -> Override | None:
        """The entry for exactly these bytes."""
        return self._by_bytes.get(sha256)

    def alike(self, hashes: Sequence[PerceptualHash], total_frames: int) -> Alike:
        """The entries for what looks like this file, which has `total_frames` frames.

        One picture that is denied is enough to deny a file. But an entry allows a file only if all
        of it looks like the entry, on every background: it must not let in what else there is in a
        video, or what shows on white only. Of several denies the nearest is returned.
        """
        return Alike(self._nearest_deny(hashes), self._allows_for_all(hashes, total_frames))

    def _nearest_deny(self, hashes: Sequence[PerceptualHash]) -> Override | None:
        found = [
            (distance, key)
            for picture in hashes
            if usable(picture)
            for key, distance in self._denies.near(picture.pdq)
        ]
        return self._entries[min(found)[1]] if found else None

    def _allows_for_all(
        self, hashes: Sequence[PerceptualHash], total_frames: int
    ) -> tuple[Override, ...]:
        if not hashes or total_frames > 1 or not all(map(usable, hashes)) or not self._allows:
            return ()
        first, *others = [dict(self._allows.near(picture.pdq)) for picture in hashes]
        common = [key for key in first if all(key in other for other in others)]
        return tuple(
            self._entries[key] for key in sorted(common, key=lambda key: (first[key], key))
        )


class OverrideSource(Protocol):
    """Where the overrides are."""

    @property
    def current(self) -> OverrideSet:
        """The overrides in force now."""


def usable(picture: PerceptualHash) -> bool:
    """Whether there is enough in the picture to tell it from others."""
    return picture.quality >= LEAST_QUALITY and len(picture.pdq) == HASH_BYTES


def distance(one: bytes, other: bytes) -> int:
    """In how many bits two hashes differ."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _texts(entry: Override) -> str:
    hashes = (value.hex() for value in (entry.sha256, entry.pdq) if value is not None)
    texts = (entry.action, entry.note, entry.who, entry.rule, entry.id, entry.decision_id, *hashes)
    return "\n".join(filter(None, texts)).casefold()


def _by_bytes(entries: Iterable[Override]) -> dict[bytes, Override]:
    return {entry.sha256: entry for entry in entries if entry.sha256 is not None}


def _looks(entries: Iterable[Override], action: OverrideAction) -> dict[str, bytes]:
    return {
        entry.id: entry.pdq
        for entry in entries
        if entry.pdq is not None and entry.perceptual and entry.action is action
    }
