"""The explanation of a view says the same as the verdict on it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.explanation import explain
from imagesafety.policy_file import find_policy, load_policy, parse_policy
from imagesafety.verdict import rules_holding

STRICT = load_policy(find_policy("vit-l-14-openai"))
POLICY = parse_policy("""
model = "m"
[concepts]
child = ["child"]
children = ["children"]
pregnant = ["pregnant"]
nudity = ["nudity"]
[[adjustments]]
when = { pregnant = 0.2 }
add = { child = -0.05 }
[groups.minor]
at_least = 3
thresholds = { child = 0.2, children = 0.2 }
critical = { child = 0.25 }
[groups.sexual]
thresholds = { nudity = 0.2 }
[[rules]]
name = "both"
all = ["minor", "sexual"]
""")


def test_each_threshold_and_correction_is_told() -> None:
    found = explain(POLICY, (0.29, 0.1, 0.21, 0.2))
    minor, sexual = found.groups
    child = minor.concepts[0]
    assert (child.raw, child.threshold, child.critical, child.counts) == (0.29, 0.2, 0.25, 1)
    assert child.was_adjusted
    assert child.value == pytest.approx(0.24)
    assert (minor.count, minor.holds) == (1, False)
    assert (sexual.count, sexual.holds) == (1, True)
    assert [outcome.holds for outcome in found.rules] == [False]
    assert found.rules[0].groups == (("minor", False), ("sexual", True))
    assert [measured.concept for measured in found.others] == ["pregnant"]
    assert found.adjustments[0].applies
    assert found.adjustments[0].moved["child"] == pytest.approx(-0.05)


def test_over_the_critical_threshold_a_concept_counts_three_times() -> None:
    minor = explain(POLICY, (0.25, 0.1, 0.1, 0.2)).groups[0]
    assert (minor.concepts[0].counts, minor.count, minor.holds) == (3, 3, True)


@given(st.lists(st.floats(-1, 1), min_size=22, max_size=22))
def test_it_agrees_with_the_verdict(similarities: list[float]) -> None:
    found = explain(STRICT, similarities)
    held = [rule.name for rule in rules_holding(STRICT, similarities)]
    assert [outcome.rule.name for outcome in found.rules if outcome.holds] == held
    for group in found.groups:
        assert group.count == sum(item.counts for item in group.concepts)
    low, high = found.span
    assert low <= 0 < high
    assert math.isfinite(low + high)


def test_other_numbers_than_there_are_concepts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 similarities for 4 concepts"):
        explain(POLICY, (0.1, 0.2))
