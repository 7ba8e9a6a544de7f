"""The best trade between false rejects and false accepts, judged by what had no say in it."""

import numpy as np
import pytest

from imagesafety.calibration.array_verdict import rejected
from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.sample import Sample
from imagesafety.calibration.trade import Costs, Counted, best_trade
from imagesafety.policy_file import parse_policy
from tests.calibration.policies import random_sample

POLICY = parse_policy("""
model = "demo"
concepts = { a = ["a"], b = ["b"] }
groups.a.thresholds = { a = 0.1 }
groups.b.thresholds = { b = 0.1 }
[[rules]]
name = "both"
all = ["a", "b"]
""")
EVEN = Costs(1.0, 1.0, 0.5)


def shifted(seed: int, count: int, *by: float) -> Sample:
    """Images with a higher similarity to each concept by so much."""
    sample = random_sample(seed, count, 2)
    return Sample(sample.similarities + np.array(by, np.float32), sample.image, sample.hashes)


def test_costs_weigh_rates_by_how_common_each_kind_is() -> None:
    assert Costs(1.0, 100.0, 0.01).expected(0.5, 0.1) == pytest.approx(0.99 * 0.5 + 0.01 * 10)


def test_kinds_that_are_far_apart_are_told_apart() -> None:
    trade = best_trade(POLICY, random_sample(1, 600, 2), shifted(2, 300, 0.3, 0.3), EVEN)
    assert trade.false_rejects.count + trade.false_accepts.count <= 2
    assert (trade.false_rejects.images, trade.false_accepts.images) == (
        len(random_sample(1, 600, 2).halves()[1]),
        len(shifted(2, 300, 0, 0).halves()[1]),
    )


def test_dear_false_accepts_make_it_stricter_and_dear_false_rejects_milder() -> None:
    benign, bad = random_sample(1, 2000, 2), shifted(2, 2000, 0.05, 0.05)
    strict = best_trade(POLICY, benign, bad, Costs(1.0, 20.0, 0.5))
    mild = best_trade(POLICY, benign, bad, Costs(20.0, 1.0, 0.5))
    assert strict.false_accepts.count < mild.false_accepts.count
    assert strict.false_rejects.count > mild.false_rejects.count


def test_a_group_that_says_nothing_is_loosened_and_the_other_decides() -> None:
    """One strictness for both would have to pay for the useless group."""
    trade = best_trade(POLICY, random_sample(1, 2000, 2), shifted(2, 2000, 0.2, 0.0), EVEN)
    assert trade.levels["b"] > 5 * trade.levels["a"]
    assert trade.false_accepts.count < 0.6 * trade.false_accepts.images


def test_what_is_reported_is_of_images_that_had_no_say() -> None:
    benign, bad = random_sample(1, 400, 2), shifted(2, 400, 0.02, 0.02)
    trade = best_trade(POLICY, benign, bad, EVEN)
    held_out, bad_held_out = benign.halves()[1], bad.halves()[1]
    wrong = int(rejected(trade.policy, held_out).sum())
    missed = len(bad_held_out) - int(rejected(trade.policy, bad_held_out).sum())
    assert trade.false_rejects == Counted(wrong, len(held_out))
    assert trade.false_accepts == Counted(missed, len(bad_held_out))


@pytest.mark.parametrize(("benign", "bad", "kind"), [(400, 30, "rejected"), (30, 400, "accepted")])
def test_too_few_of_a_kind(benign: int, bad: int, kind: str) -> None:
    with pytest.raises(CalibrationError, match=f"too few images to be {kind}: 30"):
        best_trade(POLICY, random_sample(1, benign, 2), random_sample(2, bad, 2), EVEN)
