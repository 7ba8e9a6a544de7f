"""AUC and curves, beside scikit-learn's, and intervals that hold as often as they say."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from imagesafety.evaluation.curves import Curve, Missing, curve, threshold_table
from imagesafety.evaluation.intervals import Interval
from imagesafety.evaluation.separation import Separation, separation

Floats = npt.NDArray[np.float32]
# Few different values, so that there are ties.
SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.float32) / 10
)


def separated(positives: Floats, negatives: Floats, confidence: float = 0.95) -> Separation:
    found = separation(positives, negatives, confidence)
    assert found is not None
    return found


def drawn(positives: Floats, negatives: Floats) -> Curve:
    found = curve(positives, negatives)
    assert found is not None
    return found


def together(positives: Floats, negatives: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    truth = np.repeat([True, False], [len(positives), len(negatives)])
    return truth, np.concatenate((positives, negatives))


@given(SCORES, SCORES)
def test_the_auc_is_scikit_learns(positives: Floats, negatives: Floats) -> None:
    truth, scores = together(positives, negatives)
    found = separated(positives, negatives)
    assert found.auc == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert found.auc in Interval(found.interval.low - 1e-12, found.interval.high + 1e-12)
    assert 0 <= found.interval.low < found.interval.high <= 1


@given(SCORES, SCORES)
def test_the_curves_are_scikit_learns(positives: Floats, negatives: Floats) -> None:
    truth, scores = together(positives, negatives)
    found = drawn(positives, negatives)
    rates, recall, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_rejects, rates[1:])
    np.testing.assert_allclose(found.recall, recall[1:])
    np.testing.assert_array_equal(found.thresholds, thresholds[1:])
    precision, _, _ = metrics.precision_recall_curve(truth, scores)
    np.testing.assert_allclose(found.precision, precision[:-1][::-1])
    expected = metrics.average_precision_score(truth, scores)
    assert found.average_precision == pytest.approx(expected, abs=1e-12)


def test_delongs_variance_written_out() -> None:
    rng = np.random.default_rng(1)
    positives = rng.normal(1, 1, 40).astype(np.float32)
    negatives = rng.normal(0, 1, 70).astype(np.float32).round(1)
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    auc = wins.mean()
    variance = wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 70
    half = stats.norm.ppf(0.975) * math.sqrt(variance) / (auc * (1 - auc))
    logit = math.log(auc / (1 - auc))
    found = separated(positives, negatives)
    assert found.auc == pytest.approx(auc)
    expected = [1 / (1 + math.exp(-value)) for value in (logit - half, logit + half)]
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))


def test_perfect_scores_are_not_taken_for_certain() -> None:
    for number in (1, 5, 50):
        ones, zeros = np.ones(number, np.float32), np.zeros(2 * number, np.float32)
        best, worst = separated(ones, zeros), separated(zeros, ones)
        assert (best.auc, best.interval.high) == (1, 1)
        assert (worst.auc, worst.interval.low) == (0, 0)
        # Symmetrical, and the ends are as far from 1 as the number of images allows.
        assert best.interval.low == pytest.approx(1 - worst.interval.high)
        assert 1 / (10 * number) < 1 - best.interval.low < 4 / number


def test_the_interval_holds_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    truth = float(stats.norm.cdf(1.5 / math.sqrt(2)))
    covered = sum(
        truth
        in separated(
            rng.normal(1.5, 1, 30).astype(np.float32), rng.normal(0, 1, 200).astype(np.float32), 0.9
        ).interval
        for _ in range(400)
    )
    assert 0.86 < covered / 400 < 0.94


def test_images_of_one_kind_say_nothing() -> None:
    some, none = np.ones(3, np.float32), np.empty(0, np.float32)
    assert separation(some, none) is None
    assert separation(none, some) is None
    assert curve(none, some) is None


@given(SCORES, SCORES)
def test_thresholds_keep_their_rate_and_no_lower_one_does(
    positives: Floats, negatives: Floats
) -> None:
    for row in threshold_table(positives, negatives, rates=(0.5, 0.2), confidence=0.5):
        if row.threshold is None:
            assert len(negatives) < row.needed
            continue
        rates = row.false_rejects
        assert rates is not None
        assert rates.share is not None
        assert rates.share <= row.rate
        assert rates.count == sum(float(score) >= row.threshold for score in negatives)
        assert row.recall is not None
        assert row.recall.count == sum(float(score) >= row.threshold for score in positives)
        # The next lower score would be one too many.
        lower = [float(score) for score in negatives if float(score) < row.threshold]
        assert sum(float(score) >= max(lower) for score in negatives) / len(negatives) > row.rate


def test_a_sample_that_is_too_small_says_so() -> None:
    negatives = np.linspace(0, 1, 3000, dtype=np.float32)
    rows = threshold_table(np.ones(5, np.float32), negatives)
    assert [(row.rate, row.threshold is None, row.needed) for row in rows] == [
        (1e-2, False, 299),
        (1e-3, False, 2995),
        (1e-4, True, 29956),
        (1e-5, True, 299572),
    ]
    assert rows[1].false_rejects is not None
    assert (rows[1].false_rejects.count, rows[1].false_rejects.total) == (3, 3000)
    assert all(row.threshold is None for row in threshold_table(negatives, negatives[:0]))


def test_a_threshold_is_one_that_a_policy_takes() -> None:
    negatives = np.full(400, 1 + 1e-7, np.float32)
    negatives[4:] = 0.5
    [row] = threshold_table(np.ones(5, np.float32), negatives, rates=(0.01,))
    assert (row.threshold, row.missing) == (0.500001, None)
    negatives[4] = 1
    [row] = threshold_table(np.ones(5, np.float32), negatives, rates=(0.01,))
    assert (row.threshold, row.missing) == (None, Missing.TOO_SIMILAR)
    negatives[4] = 0.9999995
    [row] = threshold_table(np.ones(5, np.float32), negatives, rates=(0.01,))
    assert row.threshold == 1


def test_a_thinned_curve_is_the_curve_at_fewer_places() -> None:
    rng = np.random.default_rng(3)
    whole = drawn(
        rng.normal(1, 1, 3000).astype(np.float32), rng.normal(0, 1, 30_000).astype(np.float32)
    )
    thin = whole.thinned(300)
    assert len(thin.thresholds) <= 602
    places = np.searchsorted(-whole.thresholds, -thin.thresholds)
    np.testing.assert_array_equal(whole.recall[places], thin.recall)
    np.testing.assert_array_equal(whole.false_rejects[places], thin.false_rejects)
    assert (thin.recall[-1], thin.false_rejects[-1]) == (1, 1)
    # Nowhere is there a gap that a plot would show.
    assert np.diff(thin.recall).max() < 0.02
    low = thin.false_rejects[thin.false_rejects < 1e-3]
    assert len(low) > 10
