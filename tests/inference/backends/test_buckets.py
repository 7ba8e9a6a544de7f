"""The batch sizes that CUDA graphs are made for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.backends.buckets import bucket_for, bucket_sizes, portions


@given(st.integers(1, 1000))
def test_little_is_computed_for_nothing(largest: int) -> None:
    sizes = bucket_sizes(largest)
    assert sizes == tuple(sorted(set(sizes)))
    assert sizes[0] == 1
    assert sizes[-1] == largest
    for count in range(1, largest + 1):
        bucket = bucket_for(count, sizes)
        assert count <= bucket <= max(count, 1.5 * (count - 1))


def test_the_sizes() -> None:
    assert bucket_sizes(1) == (1,)
    assert bucket_sizes(16) == (1, 2, 3, 4, 6, 8, 12, 16)
    with pytest.raises(ValueError, match="17"):
        bucket_for(17, bucket_sizes(16))


@given(st.integers(1, 200), st.integers(1, 64))
def test_a_large_batch_is_run_in_portions(count: int, largest: int) -> None:
    parts = portions(count, largest)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    assert all(part.stop - part.start <= largest for part in parts)
