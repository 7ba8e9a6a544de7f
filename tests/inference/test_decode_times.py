"""What is known of the files that wait for a decoder."""

import pytest

from inference.decode_times import DecodeTimes


def test_the_first_files_count_alike_and_later_ones_a_little() -> None:
    times = DecodeTimes(workers=2)
    assert times(100) == 0
    times.observe(0.1, 4)
    assert (times.views, times(0), times(1), times(2)) == (4, 0, 0, 0.1)
    assert times(10) == pytest.approx(0.5)
    times.observe(2.1, 4)
    assert times(2) == pytest.approx(1.1)
    for _ in range(200):
        times.observe(0.1, 1)
    assert times(2) == pytest.approx(0.1, rel=0.01)
    assert times.views == pytest.approx(1, rel=0.01)
    times.observe(0.1, 101)
    assert times.views == pytest.approx(6, rel=0.01)
