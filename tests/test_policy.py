"""The policy as pure code: groups count, rules conjoin, adjustments correct, any view rejects."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.policy import Action, Mode, Policy
from imagesafety.policy_file import find_policy, load_policy, parse_policy
from imagesafety.verdict import judge_image, judge_view

TWO_GROUPS = """
model = "demo"
[concepts]
a = ["a"]
b = ["b"]
c = ["c"]
[groups.ab]
at_least = 2
thresholds = { a = 0.2, b = 0.3 }
critical = { a = 0.5 }
[groups.c]
thresholds = { c = 0.1 }
[[rules]]
name = "watch"
all = ["c"]
action = "flag"
[[rules]]
name = "stop"
all = ["ab", "c"]
"""
cosines = st.floats(-1, 1)


@pytest.fixture(scope="module")
def two_groups() -> Policy:
    return parse_policy(TWO_GROUPS)


@pytest.mark.parametrize(
    ("similarities", "rule"),
    [
        ((0.19, 0.9, 0.9), "watch"),  # one count of two
        ((0.2, 0.3, 0.1), "stop"),  # at a threshold counts
        ((0.2, 0.3, 0.09), None),  # the other group misses
        ((0.5, -1, 0.1), "stop"),  # critical counts three times
        ((0.49, -1, 0.1), "watch"),
    ],
)
def test_groups_count_and_rules_need_every_group(
    two_groups: Policy, similarities: tuple[float, ...], rule: str | None
) -> None:
    found = judge_view(two_groups, similarities)
    assert (found.name if found else None) == rule


def test_any_rejected_view_rejects_and_is_named(two_groups: Policy) -> None:
    verdict = judge_image(two_groups, [(0, 0, 0), (0, 0, 0.2), (0.5, 0, 0.2), (0.6, 0, 0.2)])
    assert verdict.rejects
    assert verdict.view_index == 2


def test_a_flag_accepts_and_names_its_view(two_groups: Policy) -> None:
    verdict = judge_image(two_groups, [(0, 0, 0), (0, 0, 0.2)])
    assert not verdict.rejects
    assert verdict.rule is not None
    assert verdict.rule.action is Action.FLAG
    assert verdict.view_index == 1


@pytest.mark.parametrize("bad", [(0.1, 0.1), (0.1, 0.1, 0.1, 0.1), (0.1, math.nan, 0.1)])
def test_scores_that_mean_nothing_are_no_accept(two_groups: Policy, bad: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="similarit"):
        judge_image(two_groups, [bad])


def test_an_image_without_views_is_no_accept(two_groups: Policy) -> None:
    with pytest.raises(ValueError, match="no views"):
        judge_image(two_groups, [])


@given(st.lists(st.tuples(cosines, cosines, cosines), min_size=1, max_size=5), st.data())
def test_views_are_judged_alone(views: list[tuple[float, ...]], data: st.DataObject) -> None:
    policy = parse_policy(TWO_GROUPS)
    rejected = [judge_image(policy, [view]).rejects for view in views]
    assert judge_image(policy, views).rejects == any(rejected)
    shuffled = data.draw(st.permutations(views))
    assert judge_image(policy, shuffled).rejects == any(rejected)


@given(st.tuples(cosines, cosines, cosines), st.integers(0, 2), st.floats(0, 1))
def test_more_similarity_never_turns_a_reject_into_an_accept(
    view: tuple[float, ...], index: int, more: float
) -> None:
    policy = parse_policy(TWO_GROUPS)
    raised = [*view]
    raised[index] = min(1, raised[index] + more)
    assert judge_image(policy, [raised]).rejects or not judge_image(policy, [view]).rejects


STOP, WATCH = Action.REJECT, Action.FLAG
ENFORCE, SHADOW, OFF = Mode


def with_rules(*rules: tuple[str, Action, Mode]) -> Policy:
    """A policy of which each rule holds where its group, "a" or "b", has a similarity over 0."""
    text = """
        model = "demo"
        concepts = { a = ["a"], b = ["b"] }
        groups.a.thresholds = { a = 0.0 }
        groups.b.thresholds = { b = 0.0 }
    """
    for number, (group, action, mode) in enumerate(rules):
        text += f"""
        [[rules]]
        name = "{number}-{group}"
        all = ["{group}"]
        action = "{action}"
        mode = "{mode}"
        """
    return parse_policy(text)


@pytest.mark.parametrize(
    ("rules", "hit", "shadow"),
    [
        ([("a", STOP, OFF), ("b", WATCH, OFF)], None, None),
        ([("a", STOP, OFF), ("b", WATCH, ENFORCE)], "1-b", None),
        ([("a", STOP, SHADOW)], None, "0-a"),
        ([("a", WATCH, SHADOW), ("b", STOP, SHADOW)], None, "1-b"),
        # What a rule in shadow mode would do counts only where it is more than what is done.
        ([("a", STOP, SHADOW), ("b", WATCH, ENFORCE)], "1-b", "0-a"),
        ([("a", WATCH, SHADOW), ("b", WATCH, ENFORCE)], "1-b", None),
        ([("a", WATCH, SHADOW), ("b", STOP, ENFORCE)], "1-b", None),
        ([("a", STOP, SHADOW), ("b", STOP, ENFORCE)], "1-b", None),
    ],
)
def test_modes_of_rules(
    rules: list[tuple[str, Action, Mode]], hit: str | None, shadow: str | None
) -> None:
    verdict = judge_image(with_rules(*rules), [(0.5, 0.5)])
    assert (verdict.rule.name if verdict.rule else None) == hit
    assert (verdict.shadow.rule.name if verdict.shadow else None) == shadow
    assert verdict.rejects == (hit is not None and rules[1][1] is STOP)


def test_the_view_that_would_have_decided_in_shadow_is_named() -> None:
    policy = with_rules(("a", STOP, SHADOW), ("b", WATCH, ENFORCE))
    verdict = judge_image(policy, [(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5)])
    assert verdict.view_index == 1
    assert verdict.shadow is not None
    assert verdict.shadow.view_index == 2


def test_excepted_rules_count_as_not_holding_and_the_others_decide() -> None:
    policy = with_rules(("a", STOP, ENFORCE), ("b", WATCH, ENFORCE), ("a", STOP, SHADOW))
    views = [(0.5, 0.5)]
    assert judge_image(policy, views).rejects
    verdict = judge_image(policy, views, excepted=["0-a"])
    assert verdict.rule is policy.rules[1]
    assert verdict.shadow is not None
    assert verdict.shadow.rule is policy.rules[2]
    nothing = judge_image(policy, views, excepted={"0-a", "1-b", "2-a", "not there"})
    assert (nothing.hit, nothing.shadow) == (None, None)


@given(st.data())
def test_a_rule_that_is_off_might_as_well_not_be_there(data: st.DataObject) -> None:
    kinds = st.tuples(st.sampled_from("ab"), st.sampled_from(list(Action)))
    rules = data.draw(st.lists(st.tuples(kinds, st.sampled_from(list(Mode))), min_size=1))
    views = data.draw(st.lists(st.tuples(cosines, cosines), min_size=1, max_size=3))
    policy = with_rules(*((*kind, mode) for kind, mode in rules))
    off = [rule.name for rule in policy.rules if rule.mode is OFF]
    on = replace(policy, rules=tuple(rule for rule in policy.rules if rule.mode is not OFF))
    assert judge_image(policy, views) == judge_image(on, views)
    assert judge_image(policy, views) == judge_image(policy, views, excepted=off)


# What horde-safety publishes, written down a second time and by itself.
CONTEXT = {
    "lolicon": 0.2,
    **dict.fromkeys(("child", "children", "tween", "tweens"), 0.188),
    **dict.fromkeys(("teen", "teens"), 0.21),
    **dict.fromkeys(("infant", "infants", "toddler", "toddlers"), 0.19),
}
CRITICAL = {
    "lolicon": 0.25,
    **dict.fromkeys(("child", "children"), 0.225),
    **dict.fromkeys(("toddler", "toddlers", "infant", "infants"), 0.22),
    **dict.fromkeys(("teen", "teens"), 0.26),
    **dict.fromkeys(("tween", "tweens"), 0.25),
}
SEXUAL = {
    "porn": 0.2 - 0.015,
    "naked": 0.195 - 0.02,
    "hentai": 0.25,
    "orgy": 0.21 - 0.01,
    "nudity": 0.195 - 0.02,
    "lesbian scene": 0.22,
    "gay scene": 0.22,
}
PAIRS = {
    one: other
    for a, b in (
        ("child", "children"),
        *((f"{word}", f"{word}s") for word in ("teen", "tween", "infant", "toddler")),
    )
    for one, other in ((a, b), (b, a))
}
CONTROLS = (
    ("pregnant", 0.21, {"infant": -0.04, "infants": -0.04, "toddler": -0.03, "toddlers": -0.03}
     | {"child": -0.02, "children": -0.02}),
    ("anime", 0.23, {"teen": -0.03, "teens": -0.03}),
    ("shota", 0.21, {"teen": 0.005, "teens": 0.005, "tween": 0.01, "tweens": 0.01}
     | {"child": 0.013, "children": 0.013}),
    ("east asian", 0.24, {"teen": -0.025, "child": -0.025, "tween": -0.025}),
)  # fmt: skip


def published_decision(similarities: Mapping[str, float]) -> bool:
    values = dict(similarities)
    for control, threshold, changes in CONTROLS:
        if values[control] > threshold:
            for word, change in changes.items():
                if not (word in PAIRS and values[PAIRS[word]] > CONTEXT[word]):
                    values[word] += change
    counts = sum(values[word] > threshold for word, threshold in CONTEXT.items())
    counts += 2 * sum(values[word] > threshold for word, threshold in CRITICAL.items())
    return counts >= 3 and any(values[word] > threshold for word, threshold in SEXUAL.items())


@given(st.data())
def test_the_shipped_policy_decides_as_horde_safety(data: st.DataObject) -> None:
    policy = load_policy(find_policy("vit-l-14-openai"))
    # Close to the thresholds, where the decisions are; odd steps, so that nothing is at one.
    steps = st.integers(0, 20_000).map(lambda step: 0.15001 + step * 0.13 / 20_000)
    similarities = {concept.name: data.draw(steps) for concept in policy.concepts}
    verdict = judge_image(policy, [list(similarities.values())])
    assert verdict.rejects == published_decision(similarities)


def test_one_thing_does_not_count_twice_by_a_correction() -> None:
    policy = load_policy(find_policy("vit-l-14-openai"))
    base = dict.fromkeys((concept.name for concept in policy.concepts), 0.0)
    # "shota" would lift both words over 0.188; while one is over, the other stays where it is.
    base |= {"shota": 0.22, "child": 0.19, "children": 0.18, "teen": 0.211, "porn": 0.3}
    assert not judge_image(policy, [list(base.values())]).rejects
    # Without its twin over the threshold, the correction counts.
    base |= {"children": 0.0, "child": 0.18, "tween": 0.18}
    assert judge_image(policy, [list(base.values())]).rejects
