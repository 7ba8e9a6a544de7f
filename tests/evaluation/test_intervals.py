"""Intervals, beside the same formulas written out and beside other people's numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from imagesafety.evaluation.intervals import (
    clopper_pearson,
    images_needed,
    upper_bound,
    wilson,
)

SHARES = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(SHARES, CONFIDENCES)
def test_both_intervals_are_scipys(share: tuple[int, int], confidence: float) -> None:
    k, n = share
    test = stats.binomtest(k, n)
    for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        theirs = test.proportion_ci(confidence, method)
        found = ours(k, n, confidence)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(SHARES, CONFIDENCES)
def test_the_exact_interval_is_where_the_tails_are_as_likely_as_said(
    share: tuple[int, int], confidence: float
) -> None:
    k, n = share
    found = clopper_pearson(k, n, confidence)
    tail = (1 - confidence) / 2
    if k > 0:
        assert stats.binom.sf(k - 1, n, found.low) == pytest.approx(tail, rel=1e-6)
    if k < n:
        assert stats.binom.cdf(k, n, found.high) == pytest.approx(tail, rel=1e-6)
        bound = upper_bound(k, n, confidence)
        assert stats.binom.cdf(k, n, bound) == pytest.approx(1 - confidence, rel=1e-6)


def test_published_numbers() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20."""
    exact, score = clopper_pearson(81, 263), wilson(81, 263)
    assert (round(exact.low, 4), round(exact.high, 4)) == (0.2527, 0.3676)
    assert (round(score.low, 4), round(score.high, 4)) == (0.2553, 0.3662)
    assert (clopper_pearson(0, 20).low, round(clopper_pearson(0, 20).high, 4)) == (0, 0.1684)
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0, 0.1611)


def test_nothing_says_nothing() -> None:
    for interval in (clopper_pearson(0, 0), wilson(0, 0)):
        assert (interval.low, interval.high) == (0, 1)
    assert upper_bound(0, 0) == 1


@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4, 1e-5])
def test_how_many_images_it_takes(rate: float) -> None:
    needed = images_needed(rate)
    assert upper_bound(0, needed) <= rate < upper_bound(0, needed - 1)
    assert needed == pytest.approx(3 / rate, rel=0.02)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_what_is_no_share(k: int, n: int) -> None:
    for interval in (clopper_pearson, wilson, upper_bound):
        with pytest.raises(ValueError, match="is no share"):
            interval(k, n)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        images_needed(math.inf)
