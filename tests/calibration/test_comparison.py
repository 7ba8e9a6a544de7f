"""Comparing scores of the same images: what is better by luck is not kept."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from imagesafety.calibration.comparison import RATES, Kind, kept, outcomes, paired_gain
from imagesafety.calibration.sample import Booleans, Floats

some_scores = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4]), min_size=2, max_size=8)


def floats(values: list[float]) -> Floats:
    return np.array(values, np.float32)


@given(some_scores, some_scores, st.integers(0, 2**32))
def test_the_difference_and_its_deviation_are_delongs(
    positives: list[float], negatives: list[float], seed: int
) -> None:
    """By the definition, pair by pair."""
    rng = np.random.default_rng(seed)
    before = (floats(positives), floats(negatives))
    after = (rng.permutation(before[0]), rng.permutation(before[1]))

    def pairs(scores: tuple[Floats, Floats]) -> list[list[float]]:
        return [[(p > n) + (p == n) / 2 for n in scores[1]] for p in scores[0]]

    apart = np.array(pairs(after)) - np.array(pairs(before))
    gain = paired_gain(before, after)
    assert gain.difference == pytest.approx(apart.mean(), abs=1e-9)
    by_image = (apart.mean(axis=1), apart.mean(axis=0))
    variance = sum(values.var(ddof=1) / len(values) for values in by_image)
    if variance > 1e-12:
        z = apart.mean() / variance**0.5
        tail = 0.5 * (1 - math.erf(z / 2**0.5))
        assert gain.chance == pytest.approx(tail, abs=1e-6)
    else:
        assert gain.chance == 1


def drawn(seed: int, *shifts: float, count: int = 800) -> tuple[dict[Kind, Floats], Booleans]:
    """Scores of each kind that share most of their noise; the greater a shift, the better."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.3
    common = rng.normal(0, 1, count)
    kinds = zip(Kind, shifts, strict=False)
    return {
        kind: (common + rng.normal(0, 0.5, count) + shift * truth).astype(np.float32)
        for kind, shift in kinds
    }, truth


def choice(seed: int, *shifts: float, count: int = 800) -> Kind:
    scores, truth = drawn(seed, *shifts, count=count)
    return kept(outcomes(scores, truth), scores, truth, len(shifts) - 1)


def test_the_auc_is_that_of_scikit_learn() -> None:
    scores, truth = drawn(1, 1.0, 1.2)
    for outcome in outcomes(scores, truth):
        wanted = roc_auc_score(truth, scores[outcome.kind])
        assert outcome.separation.auc == pytest.approx(wanted)


def test_what_wins_beyond_noise_is_kept_and_the_simpler_of_equals() -> None:
    assert choice(1, 1.0, 2.0) is Kind.WEIGHTS
    assert choice(1, 1.0, 1.0, 1.0, 2.0) is Kind.PROBE
    assert choice(1, 1.0, 2.0, 2.0, 2.0) is Kind.WEIGHTS
    assert choice(1, 1.0, 1.6, 1.0, 3.0) is Kind.PROBE
    assert choice(1, 2.0, 1.0) is Kind.RAW


def test_luck_is_rarely_kept() -> None:
    lucky = sum(choice(seed, 1.0, 1.0, 1.0, 1.0) is not Kind.RAW for seed in range(200))
    assert lucky <= 20  # 5 % are expected at most; more than 20 of 200 come once in 1000


def test_recall_is_told_where_there_are_images_enough() -> None:
    scores, truth = drawn(1, 2.0, count=300)
    (outcome,) = outcomes(scores, truth)
    assert outcome.recalls == (None, None)
    scores, truth = drawn(1, 2.0, count=2000)
    (outcome,) = outcomes(scores, truth)
    found = outcome.recalls[0]
    assert found is not None
    assert outcome.recalls[1] is None
    highest = np.sort(scores[Kind.RAW][~truth])[::-1][int(RATES[0] * (~truth).sum())]
    assert (found.count, found.total) == (
        int((scores[Kind.RAW][truth] > highest).sum()),
        int(truth.sum()),
    )


def test_what_is_better_on_the_whole_and_worse_where_it_counts_is_not_kept() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([True, False], [500, 2000])
    raw = np.concatenate([rng.normal(0, 1, 500), rng.normal(0, 1, 2000)])
    raw[:200] = 10  # found without doubt, the others not at all
    other = np.concatenate([rng.normal(2, 1, 500), rng.normal(0, 1, 2000)])
    other[500:600] = 10  # some of the other kind are over all
    scores = {Kind.RAW: raw.astype(np.float32), Kind.PROBE: other.astype(np.float32)}
    found = outcomes(scores, truth)
    assert found[1].gain is not None
    assert found[1].gain.chance < 1e-6
    assert found[1].worse_at == (RATES[0],)
    assert kept(found, scores, truth, 1) is Kind.RAW


def test_one_kind_of_image_says_nothing() -> None:
    for truth in ([True, True], [False, False]):
        with pytest.raises(ValueError, match="one kind only"):
            outcomes({Kind.RAW: floats([1, 2])}, np.array(truth))
