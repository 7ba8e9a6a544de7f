"""Policies on arrays decide as they do on one image after the other."""

from dataclasses import replace

import numpy as np
from hypothesis import given

from imagesafety.calibration.array_verdict import hits_by_rule, rejected
from imagesafety.calibration.sample import Floats, Sample
from imagesafety.policy import Mode, Partial, Policy
from imagesafety.policy_file import parse_policy
from imagesafety.verdict import judge_image, rules_holding
from tests.calibration.policies import images, policies, random_sample, sample_of


@given(policies(), images())
def test_rules_hold_for_the_same_images(policy: Policy, some: list[Floats]) -> None:
    on = [rule for rule in policy.rules if rule.mode is not Mode.OFF]
    hits = hits_by_rule(policy, sample_of(some), on)
    for number, image in enumerate(some):
        views = image.tolist()
        expected = {rule.name for view in views for rule in rules_holding(policy, view)}
        assert {name for name, hit in hits.items() if hit[number]} == expected


@given(policies(), images())
def test_what_is_rejected_or_would_be_in_shadow_counts(policy: Policy, some: list[Floats]) -> None:
    counted = rejected(policy, sample_of(some))
    for number, image in enumerate(some):
        verdict = judge_image(policy, image.tolist())
        in_shadow = verdict.shadow is not None and verdict.shadow.rule.rejects
        assert counted[number] == (verdict.rejects or in_shadow)


def test_parts_and_maxima_keep_each_image_with_its_views() -> None:
    sample = sample_of([np.array(views, np.float32) for views in ([[0, 1], [1, 0]], [[3, 3]])])
    assert sample.maxima.tolist() == [[1, 1], [3, 3]]
    second = sample.part(np.array([False, True]))
    assert (second.image.tolist(), second.similarities.tolist()) == ([0], [[3, 3]])
    assert second.hashes == sample.hashes[1:]


def test_the_split_is_the_same_in_any_order_and_as_large_as_it_says() -> None:
    sample = random_sample(1, 5003, 2)
    learned, rest = sample.split_for_map()
    assert (len(learned), len(rest)) == (1000, 4003)
    turned = Sample(sample.similarities[::-1], sample.image, sample.hashes[::-1])
    assert set(turned.split_for_map()[0].hashes) == set(learned.hashes)
    one, other = rest.halves()
    assert (len(one), len(other)) == (2001, 2002)


def test_what_was_seen_in_part_is_rejected_by_a_policy_that_says_so() -> None:
    sample = random_sample(1, 10, 4)
    partial = np.arange(10) == 3
    sample = Sample(sample.similarities, sample.image, sample.hashes, partial)
    policy = parse_policy(
        'model = "demo"\nconcepts = { a = ["a"], b = ["b"], c = ["c"], d = ["d"] }\n'
        'groups.one.thresholds.a = 1\n[[rules]]\nname = "never"\nall = ["one"]\n'
    )
    assert not rejected(policy, sample).any()
    strict = replace(policy, partial=Partial.REJECT)
    assert (rejected(strict, sample) == partial).all()
    assert (rejected(strict, sample.part(np.arange(10) > 1)) == partial[2:]).all()
