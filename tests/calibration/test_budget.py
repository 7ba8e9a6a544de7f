"""Thresholds by a false-reject budget: of the whole policy, and as promised."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings

from imagesafety.calibration.array_verdict import rejected
from imagesafety.calibration.budget import CalibrationError, most_allowed, within_budget
from imagesafety.calibration.percentiles import percentiles_by_concept
from imagesafety.calibration.sample import Floats, Sample
from imagesafety.calibration.strictness import EQUAL, Family, balance_of
from imagesafety.evaluation.intervals import upper_bound
from imagesafety.policy import Policy
from imagesafety.policy_file import parse_policy
from tests.calibration.policies import CONCEPTS, images, policies, random_sample, sample_of

TWO_RULES = """
model = "demo"
concepts = { a = ["a"], b = ["b"], c = ["c"], d = ["d"] }
groups.ab = { at_least = 2, thresholds = { a = 0.1, b = 0.1 }, critical = { a = 0.3, b = 0.1 } }
groups.c.thresholds = { c = 0.2 }
groups.d.thresholds = { d = 0.1234567 }
[[adjustments]]
when = { d = 0.15 }
add = { c = -0.01 }
[[rules]]
name = "both"
all = ["ab", "c"]
mode = "shadow"
[[rules]]
name = "alone"
all = ["c"]
[[rules]]
name = "watch"
all = ["d"]
action = "flag"
"""


def family_of(policy: Policy, learned: Sample) -> Family:
    return Family(policy, percentiles_by_concept(CONCEPTS, learned))


@pytest.fixture(scope="module")
def family() -> Family:
    return family_of(parse_policy(TWO_RULES), random_sample(1, 1000, 4))


def test_every_concept_is_equally_rare_and_only_what_rejects_moves(family: Family) -> None:
    policy, at = family.at(0.01), family.percentiles
    assert family.moved == ("ab", "c")
    assert policy.groups["d"] == family.policy.groups["d"]
    for group, concept in (("ab", "a"), ("ab", "b"), ("c", "c")):
        share = at[concept].share(policy.groups[group].thresholds[concept]).share
        assert share == pytest.approx(0.01, rel=0.05)
    critical = at["a"].share(policy.groups["ab"].critical["a"]).share
    assert critical == pytest.approx(0.001, rel=0.05)
    # What counted three times from its threshold on goes on to.
    assert policy.groups["ab"].critical["b"] == policy.groups["ab"].thresholds["b"]


def test_the_whole_policy_keeps_the_budget_not_each_concept(family: Family) -> None:
    sample = random_sample(2, 20_000, 4)
    policy, promise = within_budget(family, sample, 0.001, 0.95)
    assert promise.is_kept
    assert promise.at_most <= 0.001
    assert promise.rejected == rejected(policy, sample).sum() > 0
    looser = family.levels[family.levels.index(promise.level) - 1]
    assert rejected(family.at(looser), sample).sum() > most_allowed(20_000, 0.001, 0.95)


@pytest.mark.parametrize(("images", "allowed"), [(2994, None), (2995, 0), (4741, 0), (4742, 1)])
def test_how_many_may_be_rejected(images: int, allowed: int | None) -> None:
    assert most_allowed(images, 0.001, 0.95) == allowed
    if allowed is not None:
        assert upper_bound(allowed, images, 0.95) <= 0.001 < upper_bound(allowed + 1, images, 0.95)


def test_too_few_images_promise_what_they_can(family: Family) -> None:
    _, promise = within_budget(family, random_sample(2, 400, 4), 0.001, 0.95)
    assert not promise.is_kept
    assert promise.rejected == 0
    assert promise.at_most == pytest.approx(1 - 0.05 ** (1 / 400))
    assert promise.wanted == 3743


def test_what_no_threshold_can_accept_is_one_line() -> None:
    text = TWO_RULES.replace("c = -0.01", "c = 1").replace("d = 0.15", "d = -1")
    family = family_of(parse_policy(text), random_sample(1, 1000, 4))
    with pytest.raises(CalibrationError, match="strictest thresholds reject 300 of 300 benign"):
        within_budget(family, random_sample(2, 300, 4), 0.01, 0.95)


@given(policies(), images())
@settings(max_examples=50, deadline=None)
def test_no_stricter_level_rejects_more_than_was_allowed(
    policy: Policy, some: list[Floats]
) -> None:
    """Also where twins make a stricter level reject what a looser one accepts."""
    family = family_of(policy, random_sample(1, 40, 4))
    sample = sample_of(some)
    try:
        _, promise = within_budget(family, sample, 0.5, 0.9)
    except CalibrationError:
        return
    index = family.levels.index(promise.level)
    allowed = most_allowed(len(sample), 0.5, 0.9) or 0
    for level in family.levels[index::20]:
        assert rejected(family.at(level), sample).sum() <= allowed
    if index and family.is_monotone:
        assert rejected(family.at(family.levels[index - 1]), sample).sum() > allowed


@pytest.mark.parametrize(("images", "budget"), [(400, 0.01), (900, 0.01), (60, 0.02)])
def test_the_promise_holds_as_often_as_it_says(images: int, budget: float) -> None:
    """A hundred and more calibrations on fresh images; the true rates by very many others.

    With a confidence of 90 % a tenth of the promises may be broken; more than 17 % are with a
    chance of 0.2 % if it is a tenth.
    """
    everyone = random_sample(7, 400_000, 4)
    rng = np.random.default_rng(8)
    policy = parse_policy(TWO_RULES)
    broken, runs, rates = 0, 200, []
    for run in range(runs):
        chosen = rng.choice(len(everyone), images, replace=False)
        hashes = tuple(hashlib.sha256(b"%d %d" % (run, n)).digest() for n in chosen)
        drawn = Sample(everyone.similarities[chosen], np.arange(images), hashes)
        learned, rest = drawn.split_for_map()
        calibrated, promise = within_budget(family_of(policy, learned), rest, budget, 0.9)
        rate = float(rejected(calibrated, everyone).mean())
        rates.append(rate)
        broken += rate > promise.at_most
    assert broken <= 0.17 * runs
    # It isn't kept by rejecting next to nothing.
    assert np.mean(rates) > 0.2 * promise.at_most


def test_with_its_balance_a_policy_that_keeps_the_budget_is_made_no_stricter() -> None:
    policy, learned = parse_policy(TWO_RULES), random_sample(1, 1000, 4)
    percentiles = percentiles_by_concept(CONCEPTS, learned)
    shares = {
        place: percentiles[place[1]].share(policy.groups[place[0]].thresholds[place[1]]).share
        for place in (("ab", "a"), ("ab", "b"), ("c", "c"))
    }
    family = Family(policy, percentiles, balance_of(policy, percentiles))
    own = family.at(max(shares.values()))
    for group, concept in shares:
        assert own.groups[group].thresholds[concept] == pytest.approx(
            policy.groups[group].thresholds[concept], abs=2e-5
        )
    sample = random_sample(2, 20_000, 4)
    budget = upper_bound(int(rejected(own, sample).sum()), len(sample), 0.95)
    found, promise = within_budget(family, sample, budget, 0.95)
    assert promise.level >= max(shares.values()) * (1 - 1e-9)
    for group, concept in shares:
        assert found.groups[group].thresholds[concept] <= own.groups[group].thresholds[concept]


def test_thresholds_that_no_benign_image_reaches_have_no_balance() -> None:
    percentiles = percentiles_by_concept(CONCEPTS, random_sample(1, 1000, 4))
    placeholders = TWO_RULES.replace("c = 0.2", "c = 1.0")
    assert balance_of(parse_policy(placeholders), percentiles) == EQUAL
