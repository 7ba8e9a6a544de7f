"""The index finds what comparing one by one finds."""

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.overrides.perceptual_index import WITHIN_BITS, PerceptualIndex
from tests.gateway.overrides.drafts import flipped, spread


def one_by_one(hashes: Mapping[str, bytes], wanted: bytes) -> dict[str, int]:
    number = int.from_bytes(wanted, "big")
    distances = {
        key: (int.from_bytes(value, "big") ^ number).bit_count() for key, value in hashes.items()
    }
    return {key: bits for key, bits in distances.items() if bits <= WITHIN_BITS}


def crowd(seed: int, size: int) -> dict[str, bytes]:
    """Random hashes, a third of them near each other."""
    rng = random.Random(seed)
    middle = rng.getrandbits(256)
    hashes = {}
    for number in range(size):
        value = rng.getrandbits(256)
        if number % 3 == 0:
            value = middle
            for bit in rng.sample(range(256), rng.randrange(40)):
                value ^= 1 << bit
        hashes[str(number)] = value.to_bytes(32, "big")
    return hashes


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([0, 1, 100, 1500]),
    bits=st.lists(st.integers(0, 255), max_size=34, unique=True),
    start=st.integers(0, 1499),
)
def test_it_finds_what_comparing_finds(seed: int, size: int, bits: list[int], start: int) -> None:
    hashes = crowd(seed, size)
    index = PerceptualIndex(hashes)
    assert len(index) == size
    number = int.from_bytes(hashes.get(str(start), bytes(32)), "big")
    for bit in bits:
        number ^= 1 << bit
    wanted = number.to_bytes(32, "big")
    assert dict(index.near(wanted)) == one_by_one(hashes, wanted)


@pytest.mark.parametrize("size", [1, 1500])
@pytest.mark.parametrize("move", [flipped, spread])
def test_31_bits_are_near_and_32_are_not(size: int, move: Callable[[bytes, int], bytes]) -> None:
    hashes = crowd(1, size) | {"wanted": bytes(range(32))}
    index = PerceptualIndex(hashes)
    assert dict(index.near(move(hashes["wanted"], 31)))["wanted"] == 31
    assert "wanted" not in dict(index.near(move(hashes["wanted"], 32)))


@settings(max_examples=15, deadline=None)
@given(
    size=st.sampled_from([0, 5, 1500]),
    steps=st.lists(
        st.tuples(
            st.sets(st.integers(0, 999), max_size=20),  # added, or put in the place of another
            st.sets(st.integers(0, 999), max_size=20),  # removed
            st.booleans(),  # whether many are added as well
        ),
        max_size=6,
    ),
)
def test_a_changed_index_is_like_a_new_one(
    size: int, steps: list[tuple[set[int], set[int], bool]]
) -> None:
    hashes = crowd(2, size)
    index = PerceptualIndex(hashes)
    for number, (added, removed, many) in enumerate(steps):
        source = crowd(number, 1000)
        new = {str(key): source[str(key)] for key in added}
        if many:
            new |= {f"{number}-{key}": value for key, value in source.items()}
        before, kept = index, hashes
        index = index.changed(new, map(str, removed))
        gone = set(map(str, removed))
        hashes = {key: value for key, value in hashes.items() if key not in gone} | new
        assert len(index) == len(hashes)
        for wanted in (*list(hashes.values())[:5], bytes(32)):
            assert dict(index.near(wanted)) == one_by_one(hashes, wanted)
            assert dict(before.near(wanted)) == one_by_one(kept, wanted)
