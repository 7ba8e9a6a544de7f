"""How long a batch takes: measured, learnt from, and doubted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batch_times import BatchTimes, calmer, shortest_size, worthwhile_size

MEASURED = {1: 0.010, 2: 0.012, 4: 0.020, 8: 0.040}
tables = st.dictionaries(st.integers(1, 256), st.floats(0, 10), min_size=1, max_size=9)


def test_what_was_measured_and_what_lies_between_and_beyond() -> None:
    times = BatchTimes(MEASURED)
    assert {size: times(size) for size in MEASURED} == pytest.approx(MEASURED)
    assert times(3) == pytest.approx(0.016)
    assert times(6) == pytest.approx(0.030)
    assert times(16) == pytest.approx(0.080)


def test_one_size_is_enough() -> None:
    times = BatchTimes({4: 0.2})
    assert (times(1), times(4), times(8)) == pytest.approx((0.05, 0.2, 0.4))


@given(tables, st.integers(1, 1000))
def test_no_table_gives_nonsense(measured: dict[int, float], size: int) -> None:
    assert 0 <= BatchTimes(measured)(size) < math.inf


def test_many_views_take_full_batches_and_a_rest() -> None:
    times = BatchTimes(MEASURED)
    assert times.of_many(8, 8) == pytest.approx(0.040)
    assert times.of_many(17, 8) == pytest.approx(0.090)
    assert times.of_many(3, 4) == pytest.approx(times(3))


def test_a_machine_that_became_slower_is_slower_with_every_size() -> None:
    times = BatchTimes(MEASURED)
    for _ in range(50):
        times.observe(4, 3 * MEASURED[4])
    assert times(1) == pytest.approx(0.03, rel=0.01)
    assert times(8) == pytest.approx(0.12, rel=0.01)
    for _ in range(50):
        times.observe(8, MEASURED[8])
    assert times(1) == pytest.approx(0.01, rel=0.01)


def test_one_batch_that_hung_changes_little() -> None:
    times = BatchTimes(MEASURED)
    times.observe(4, 3600.0)
    assert times(4) < 1.25 * MEASURED[4]


def test_three_batches_that_agree_count_in_full() -> None:
    times = BatchTimes(MEASURED)
    for slower in (12, 10, 11):
        times.observe(4, slower * MEASURED[4])
    assert times(8) == pytest.approx(10 * MEASURED[8])
    for _ in range(3):
        times.observe(4, MEASURED[4])
    assert times(8) == pytest.approx(MEASURED[8])


def test_two_batches_that_hung_count_no_more_than_one_each() -> None:
    times = BatchTimes(MEASURED)
    for seconds in (MEASURED[4], 3600.0, 3600.0):
        times.observe(4, seconds)
    assert times(4) < 1.5 * MEASURED[4]


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 1e9)), max_size=60))
def test_whatever_is_observed_estimates_stay_usable(seen: list[tuple[int, float]]) -> None:
    times = BatchTimes(MEASURED)
    for size, seconds in seen:
        times.observe(size, seconds)
        assert 0 < times(1) < times(8) < math.inf


def test_batches_that_end_together_are_learnt_from_as_one() -> None:
    times = BatchTimes(MEASURED, overlap=2)
    for _ in range(50):
        times.observe(8, 2 * MEASURED[8])
        times.observe(8, 0.0)
    assert times(8) == pytest.approx(MEASURED[8])


def test_a_device_that_takes_no_time_is_left_at_that() -> None:
    times = BatchTimes({1: 0.0, 8: 0.0})
    times.observe(8, 5.0)
    times.doubt(0.0, -1.0)
    assert times(8) == 0


def test_refusals_make_an_estimate_that_was_too_high_be_forgotten() -> None:
    times = BatchTimes(MEASURED)
    for _ in range(50):
        times.observe(1, 10 * MEASURED[1])
    for _ in range(300):
        times.doubt(times(8), MEASURED[8])
    assert times(8) == pytest.approx(MEASURED[8], rel=0.05)


def test_a_flood_of_what_never_had_a_chance_teaches_nothing() -> None:
    times = BatchTimes(MEASURED)
    for _ in range(50):
        times.observe(1, 10 * MEASURED[1])
    before = times(8)
    for left in (0.5 * MEASURED[8], 0.0, -1.0):
        times.doubt(times(8), left)
    assert times(8) == before


def test_refusals_do_not_make_a_fast_machine_look_slower() -> None:
    times = BatchTimes(MEASURED)
    for _ in range(50):
        times.observe(1, MEASURED[1] / 2)
    before = times(8)
    for _ in range(100):
        times.doubt(times(8), MEASURED[8])
    assert times(8) <= before


@pytest.mark.parametrize(
    ("measured", "overlap", "size"),
    [
        (MEASURED, 1, 8),  # 200 a second, as with 4
        ({1: 0.01, 2: 0.02, 4: 0.04}, 1, 4),
        ({1: 0.01, 2: 0.021, 4: 0.045}, 1, 2),  # a loss of 5 % is none
        ({1: 0.01, 2: 0.008, 4: 0.1}, 1, 2),
        ({1: 0.2, 2: 0.4, 4: 0.8, 8: 1.6}, 1, 4),  # one that keeps others waiting long is not made
        ({1: 0.2, 2: 0.4, 4: 0.8, 8: 1.6}, 2, 2),
        ({1: 2.0, 2: 3.0}, 1, 1),
        ({1: 0.0, 2: 0.0}, 1, 2),
        ({5: 1.0}, 1, 5),
    ],
)
def test_the_largest_batch_that_is_about_as_fast_as_any(
    measured: dict[int, float], overlap: int, size: int
) -> None:
    assert worthwhile_size(measured, overlap) == size


@pytest.mark.parametrize(
    ("measured", "max_batch", "size"),
    [
        (MEASURED, 8, 4),  # 200 a second, as with 8
        (MEASURED, 2, 2),
        ({1: 0.0104, 2: 0.02, 4: 0.04}, 4, 1),  # a loss of 5 % is none
        ({1: 0.02, 2: 0.021, 4: 0.022}, 4, 4),
        ({1: 0.0, 2: 0.0}, 2, 1),
        ({5: 1.0}, 5, 5),
        ({5: 1.0}, 3, 3),
    ],
)
def test_the_smallest_batch_that_is_about_as_fast_as_any(
    measured: dict[int, float], max_batch: int, size: int
) -> None:
    assert shortest_size(measured, max_batch) == size


def test_another_table_takes_the_place_of_all_that_was_learnt() -> None:
    times = BatchTimes(MEASURED, overlap=2)
    for _ in range(31):
        times.observe(4, 0.9)
    times.replace({1: 0.1, 3: 0.2})
    assert {size: times(size) for size in (1, 2, 3, 5)} == pytest.approx(
        {1: 0.1, 2: 0.15, 3: 0.2, 5: 0.3}
    )
    for _ in range(2):  # what was seen before does not count for the pair
        times.observe(3, 0.2)
    assert times(3) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("earlier", "newest", "expected"),
    [
        (MEASURED, MEASURED, MEASURED),
        ({1: 0.1, 2: 0.2}, {1: 0.01, 2: 0.02}, {1: 0.01, 2: 0.02}),  # was disturbed
        ({1: 0.01, 2: 0.02}, {1: 0.015, 2: 0.03}, {1: 0.01, 2: 0.02}),  # is disturbed
        ({1: 0.01, 2: 0.09}, {1: 0.015, 2: 0.03}, {1: 0.01, 2: 0.03}),  # each at times
        ({1: 0.001, 2: 0.002}, {1: 0.01, 2: 0.02}, {1: 0.01, 2: 0.02}),  # another machine
        ({4: 0.05}, {1: 0.01, 2: 0.02}, {1: 0.01, 2: 0.02, 4: 0.05}),
        ({4: 0.09, 8: 0.03}, {1: 0.01, 2: 0.02}, {1: 0.01, 2: 0.02}),
    ],
)
def test_the_calmer_times_of_two_measurements(
    earlier: dict[int, float], newest: dict[int, float], expected: dict[int, float]
) -> None:
    assert calmer(earlier, newest) == expected


@given(tables, tables)
def test_the_calmer_times_are_a_table_too(a: dict[int, float], b: dict[int, float]) -> None:
    times = calmer(a, b)
    assert set(b) <= set(times) <= {*a, *b}
    assert all(times[size] <= seconds for size, seconds in b.items())
