import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rehearsal.memory_trend import HOUR, trend

TIMES = [float(second) for second in range(0, 1200, 5)]


@given(st.floats(-1000, 1000), st.floats(0, 1e4))
def test_a_line_has_its_slope(per_hour: float, start: float) -> None:
    found = trend(TIMES, [start + per_hour * time / HOUR for time in TIMES])
    assert found.per_hour == pytest.approx(per_hour, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_flat_and_a_leak_is_not(seed: int) -> None:
    chance = random.Random(seed)
    noise = [500 + chance.gauss(0, 0.5) for _ in TIMES]
    leak = [value + 60 * time / HOUR for time, value in zip(TIMES, noise, strict=True)]
    assert trend(TIMES, noise).is_flat(10) is True
    assert trend(TIMES, leak).is_flat(10) is False


def test_a_short_time_leaves_it_open() -> None:
    assert trend(TIMES[:6], [500.0, 501.0, 500.0, 501.0, 500.0, 501.0]).is_flat(10) is None


def test_a_slow_wave_is_less_sure_than_noise() -> None:
    chance = random.Random(0)
    value, wave = 0.0, []
    for _ in TIMES:
        value = 0.95 * value + chance.gauss(0, 0.1)
        wave.append(value)
    shuffled = chance.sample(wave, len(wave))
    assert trend(TIMES, wave).error > 2 * trend(TIMES, shuffled).error


@pytest.mark.parametrize(
    ("times", "values"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 2])]
)
def test_what_has_no_trend_is_refused(times: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="a trend needs"):
        trend(times, values)
