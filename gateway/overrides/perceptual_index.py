"""Finds hashes of 256 bits within a few bits of a given one, among many. Pure code.

Of 16 words of 16 bits, 31 differing bits leave at least one with no more than one differing bit
(pigeonhole). So each hash is filed under each of its words, and a lookup compares only the hashes
that are filed under the words asked for, or under one that differs from those in one bit: of random
hashes one in 241. `python -m benchmarks.overrides` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

HASH_BYTES = 32
WITHIN_BITS = 31
"""The largest distance that is found; the index would miss some of those farther away."""

_WORDS = 16
_VALUES = 1 << 16
_FLIPS = (0, *(1 << bit for bit in range(16)))
_FEW = 1024  # hashes that are compared one by one about as fast as they are found by words


class PerceptualIndex:
    """An immutable index of hashes (32 bytes each) by key.

    What was added or removed since the words were filed is kept aside, so that a change of one hash
    among many doesn't cost a second.
    """

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        few = len(hashes) <= _FEW
        self._filed = _Filed({} if few else hashes)
        self._aside = _numbers(hashes if few else {})
        self._removed: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._filed.keys) - len(self._removed) + len(self._aside)

    def changed(self, added: Mapping[str, bytes], removed: Iterable[str]) -> PerceptualIndex:
        """An index without the keys `removed`, and then with `added`, in place of the same keys."""
        gone = {*removed, *added}
        aside = {key: value for key, value in self._aside.items() if key not in gone}
        aside |= _numbers(added)
        out = self._removed | (gone & self._filed.positions.keys())
        if len(aside) + len(out) > _FEW + len(self._filed.keys) // 8:
            kept = {key: value for key, value in self._filed.items() if key not in out}
            return PerceptualIndex(
                kept | {key: value.to_bytes(HASH_BYTES, "big") for key, value in aside.items()}
            )
        index = PerceptualIndex({})
        index._filed, index._aside, index._removed = self._filed, aside, out
        return index

    def near(self, wanted: bytes) -> Iterator[tuple[str, int]]:
        """Each key whose hash is within WITHIN_BITS bits of `wanted`, with the distance in bits."""
        number = int.from_bytes(wanted, "big")
        for key, value in self._aside.items():
            if (distance := (value ^ number).bit_count()) <= WITHIN_BITS:
                yield key, distance
        for key, distance in self._filed.near(wanted):
            if key not in self._removed:
                yield key, distance


class _Filed:
    """Hashes filed by their words.

    For each word of a hash, `starts[value]` to `starts[value + 1]` is where in `members` the
    positions of the hashes are that have this value there.
    """

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self.keys = list(hashes)
        self.positions = {key: position for position, key in enumerate(self.keys)}
        self._numbers = list(_numbers(hashes).values())
        words = _words(b"".join(hashes.values()))
        self._tables = [_table(words[place::_WORDS]) for place in range(_WORDS)] if hashes else []

    def items(self) -> Iterator[tuple[str, bytes]]:
        for key, number in zip(self.keys, self._numbers, strict=True):
            yield key, number.to_bytes(HASH_BYTES, "big")

    def near(self, wanted: bytes) -> Iterator[tuple[str, int]]:
        candidates: set[int] = set()
        for (starts, members), word in zip(self._tables, _words(wanted), strict=False):
            for flip in _FLIPS:
                value = word ^ flip
                start, end = starts[value], starts[value + 1]
                if start != end:
                    candidates.update(members[start:end])
        number = int.from_bytes(wanted, "big")
        for position in candidates:
            distance = (self._numbers[position] ^ number).bit_count()
            if distance <= WITHIN_BITS:
                yield self.keys[position], distance


def _numbers(hashes: Mapping[str, bytes]) -> dict[str, int]:
    return {key: int.from_bytes(value, "big") for key, value in hashes.items()}


def _words(hashes: bytes) -> array[int]:
    words = array("H")
    words.frombytes(hashes)
    return words


def _table(words: array[int]) -> tuple[array[int], array[int]]:
    """`starts` and `members` of one word: a counting sort.

    sorted() would be about as fast, but keep every other thread waiting until it is done.
    """
    counts = [0] * (_VALUES + 1)
    for word in words:
        counts[word + 1] += 1
    starts = array("I", accumulate(counts))
    free = list(starts)
    members = array("I", bytes(4 * len(words)))
    for position, word in enumerate(words):
        members[free[word]] = position
        free[word] += 1
    return starts, members
