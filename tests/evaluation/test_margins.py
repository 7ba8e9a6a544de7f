"""Margins agree with the verdict, on random policies."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.evaluation.margins import RuleMargins
from imagesafety.policy import Policy
from imagesafety.policy_file import find_policy, load_policy
from imagesafety.verdict import adjusted, judge_image, named, rules_holding
from tests.calibration.policies import CONCEPTS, policies, values

VIEWS = st.lists(
    st.lists(values, min_size=len(CONCEPTS), max_size=len(CONCEPTS)), min_size=1, max_size=3
)


@given(policies(), VIEWS)
def test_a_margin_is_positive_where_the_rule_holds(
    policy: Policy, views: list[list[float]]
) -> None:
    image = np.array(views, np.float32)
    rules = RuleMargins(policy)
    margins = rules.of_views(image)
    for view, row in zip(image.tolist(), margins, strict=True):
        holding = [rule for rule, margin in zip(rules.rules, row, strict=True) if margin >= 0]
        assert holding == rules_holding(policy, view)
    found = rules.of(image)
    assert (found.margins == margins.max(axis=0)).all()
    assert [margins[view, rule] for rule, view in enumerate(found.views)] == list(found.margins)


@given(policies(), VIEWS)
def test_adjusted_as_the_verdict_does(policy: Policy, views: list[list[float]]) -> None:
    image = np.array(views, np.float32)
    expected = [list(adjusted(policy, named(policy, view)).values()) for view in image.tolist()]
    assert RuleMargins(policy).adjusted(image).tolist() == expected


@given(st.lists(st.floats(-1, 1, width=32), min_size=22, max_size=22))
def test_a_shipped_policy_is_judged_alike(view: list[float]) -> None:
    policy = load_policy(find_policy("vit-l-14-openai"))
    rules = RuleMargins(policy)
    found = rules.of(np.array([view], np.float32)).margins
    rejected = any(m >= 0 for rule, m in zip(rules.rules, found, strict=True) if rule.rejects)
    assert rejected == judge_image(policy, [view]).rejects


@given(policies(), VIEWS, st.sampled_from([0.025, -0.025, 0.13]))
def test_a_margin_is_how_far_all_thresholds_may_move(
    policy: Policy, views: list[list[float]], shift: float
) -> None:
    """Where nothing is adjusted, raising every similarity raises every margin by as much."""
    plain = RuleMargins(replace(policy, adjustments=()))
    image = np.array(views, np.float64)
    moved = plain.of(image + shift).margins
    np.testing.assert_allclose(moved, plain.of(image).margins + shift, atol=1e-12)
