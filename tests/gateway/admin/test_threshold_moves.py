"""Sliders move thresholds, and what they make is a policy that a file could have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.threshold_moves import BadMoveError, moves
from imagesafety.policy_file import find_policy, load_policy, parse_policy

POLICY = load_policy(find_policy("vit-l-14-openai"))
ODD = parse_policy("""
model = "m"
[concepts]
"a \\"b\\" = c" = ["x"]
d = ["d"]
[groups."g.\\u00e9 h"]
at_least = 2
thresholds = { "a \\"b\\" = c" = 0.1005, d = -0.95 }
twins = [["a \\"b\\" = c", "d"]]
[[rules]]
name = "r"
all = ["g.\\u00e9 h"]
""")


def field(group: str, kind: str, concept: str = "") -> str:
    sliders = moves(POLICY, {}).groups[group]
    return next(s.field for s in sliders if (s.kind, s.concept) == (kind, concept))


def test_untouched_sliders_leave_the_policy_as_it_is() -> None:
    untouched = moves(POLICY, {})
    sent = {s.field: s.written for sliders in untouched.groups.values() for s in sliders}
    for form in ({}, sent):
        found = moves(POLICY, form)
        assert found.policy is POLICY
        assert found.moved == []
        assert found.toml == ""


def test_moved_ones_change_just_that() -> None:
    form = {field("sexual", "threshold", "porn"): "0.25", field("minor", "at_least"): "2"}
    found = moves(POLICY, form)
    assert found.policy.groups["sexual"].thresholds["porn"] == 0.25
    assert found.policy.groups["sexual"].thresholds["naked"] == 0.175
    assert found.policy.groups["minor"].at_least == 2
    assert found.policy.digest != POLICY.digest
    assert {slider.group for slider in found.moved} == {"minor", "sexual"}


def test_the_tables_to_write_are_those_of_the_moved_policy() -> None:
    for policy in (POLICY, ODD):
        form = {}
        for sliders in moves(policy, {}).groups.values():
            form[sliders[1].field] = str(sliders[1].original + 0.013)
        found = moves(policy, form)
        concepts = "".join(f"{key(c.name)} = ['x']\n" for c in policy.concepts)
        rules = "".join(f"[[rules]]\nname = {key(n)}\nall = [{key(n)}]\n" for n in policy.groups)
        text = f"model = 'm'\n[concepts]\n{concepts}\n{found.toml}\n{rules}"
        assert parse_policy(text).groups == found.policy.groups


def key(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (field("sexual", "threshold", "porn"), "1.5", "outside"),
        (field("sexual", "threshold", "porn"), "nan", "not a number to compare with"),
        (field("sexual", "threshold", "porn"), "inf", "not a number to compare with"),
        (field("sexual", "threshold", "porn"), "'; DROP TABLE decisions", "is not a number"),
        (field("minor", "critical", "child"), "0.1", "is under its threshold"),
        (field("minor", "at_least"), "0", "whole number from 1 to 33"),
        (field("minor", "at_least"), "34", "whole number from 1 to 33"),
        (field("minor", "at_least"), "2.6", "whole number from 1 to 33"),
    ],
)
def test_what_no_policy_may_have_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(BadMoveError, match=message):
        moves(POLICY, {name: value})


@given(st.dictionaries(st.from_regex(r"g[01]\.[ntc][0-9]?", fullmatch=True), st.text(max_size=8)))
def test_any_form_makes_a_policy_or_is_refused(form: dict[str, str]) -> None:
    try:
        found = moves(POLICY, form)
    except BadMoveError:
        return
    assert found.policy.groups.keys() == POLICY.groups.keys()
