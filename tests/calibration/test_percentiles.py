"""How rare a similarity is among benign images."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.calibration.percentiles import Percentiles

FOUR = Percentiles(np.array([0.1, 0.2, 0.3, 0.4], np.float32))


@pytest.mark.parametrize(("value", "share"), [(0.05, 1), (0.1, 1), (0.2, 0.75), (0.4, 0.25)])
def test_at_a_sampled_value_it_is_the_share_at_or_over_it(value: float, share: float) -> None:
    found = FOUR.share(float(np.float32(value)))
    assert found.share == pytest.approx(share)
    assert not found.extrapolated


def test_it_is_log_linear_between_samples() -> None:
    assert FOUR.share(0.35).share == pytest.approx(math.sqrt(0.5 * 0.25), rel=1e-5)


def test_beyond_the_sample_it_falls_on_and_says_so() -> None:
    found = FOUR.share(0.5)
    assert found.extrapolated
    assert 0 < found.share < 0.25


def test_equal_values_count_together() -> None:
    same = Percentiles(np.array([0.1, 0.2, 0.2, 0.2], np.float32))
    assert same.share(float(np.float32(0.2))).share == pytest.approx(0.75)
    assert Percentiles(np.full(9, 0.2, np.float32)).value(1e-6) > 0.2


def test_the_tail_of_an_exponential_distribution_is_found() -> None:
    sample = np.random.default_rng(3).exponential(0.02, 20_000).astype(np.float32)
    value = Percentiles(sample).value(1e-7)
    assert value == pytest.approx(-0.02 * math.log(1e-7), rel=0.15)


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=60, unique=True),
    st.floats(1e-12, 1),
)
def test_shares_and_values_are_each_others_inverse(sample: list[float], share: float) -> None:
    percentiles = Percentiles(np.array(sample, np.float32))
    value = percentiles.value(share)
    assert percentiles.share(value).share == pytest.approx(share, rel=1e-3)


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=60))
def test_a_higher_value_is_never_less_rare(sample: list[float]) -> None:
    percentiles = Percentiles(np.array(sample, np.float32))
    shares = [percentiles.share(value).share for value in np.linspace(-1.2, 1.5, 40)]
    assert shares == sorted(shares, reverse=True)
