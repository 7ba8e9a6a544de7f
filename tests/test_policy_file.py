"""Policy files: what can't be meant is refused, with the line and the reason."""

from pathlib import Path

import pytest

from imagesafety.policy import Action, Detail, Mode, Partial, Prompt
from imagesafety.policy_file import PolicyError, find_policy, load_policy, parse_policy

GOOD = """\
model = "demo"

[concepts]
red = ["something red", "red"]
"two words" = { prompts = ["x", "y"], weights = [1, 0.5] }

[[adjustments]]
when = { "two words" = 0.2 }
add = { red = -0.1 }

[groups.one]
at_least = 1
thresholds = { red = 0.5, "two words" = -1 }
critical = { red = 1 }
twins = [["red", "two words"]]

[[rules]]
name = "r"
all = ["one"]
action = "reject"
"""


@pytest.mark.parametrize("path", sorted(Path("policies").glob("*.toml")), ids=str)
def test_shipped_policies_load_by_name(path: Path) -> None:
    assert load_policy(find_policy(path.stem)) == load_policy(path)


def test_a_policy_looks_no_closer_and_takes_partial_for_undecodable_unless_it_says_so() -> None:
    policy = parse_policy(GOOD)
    assert (policy.detail, policy.closer_when) == (None, ())
    assert policy.partial is Partial.UNDECODABLE


def test_a_margin_becomes_bands_as_wide_as_adjustments_may_move_a_similarity() -> None:
    policy = parse_policy('partial = "accept"\n' + GOOD + "[detail]\ntiles = 2\nmargin = 0.05\n")
    assert policy.partial is Partial.ACCEPT
    assert policy.detail == Detail(2, 0.05)
    bands = {(b.concept, round(b.at_least, 3), round(b.at_most, 3)) for b in policy.closer_when}
    assert bands == {("red", 0.45, 0.65), ("red", 0.95, 1.15), ("two words", -1.05, -0.95)}
    always = parse_policy(GOOD + "[detail]\ntiles = 3\n")
    assert (always.detail, always.closer_when) == (Detail(3, None), ())


def test_everything_the_grammar_has() -> None:
    policy = parse_policy(GOOD)
    assert policy.concepts[1].prompts == (Prompt("x", 1), Prompt("y", 0.5))
    assert policy.groups["one"].twins == (("red", "two words"),)
    assert policy.weights_digest is None
    assert len(policy.digest) == 64


@pytest.mark.parametrize("mode", list(Mode))
def test_rules_are_enforced_unless_they_say_another_mode(mode: Mode) -> None:
    (rule,) = parse_policy(GOOD).rules
    assert (rule.mode, rule.action) == (Mode.ENFORCE, Action.REJECT)
    (rule,) = parse_policy(GOOD + f'mode = "{mode}"\n').rules
    assert rule.mode is mode


def test_a_mode_changes_the_digest_of_the_policy_but_not_that_of_its_concepts() -> None:
    policy, trial = parse_policy(GOOD), parse_policy(GOOD + 'mode = "shadow"\n')
    assert trial.digest != policy.digest
    assert trial.concepts_digest == policy.concepts_digest
    assert parse_policy(GOOD.replace('"red"]', '"Red"]')).concepts_digest != policy.concepts_digest


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ('model = "demo"', "", None, "'model' must be a text"),
        ("model", "modle", 1, "unknown key 'modle'"),
        ('model = "demo"', 'model = "demo"\npartial = "maybe"', 2, "undecodable, accept, reject"),
        ("[concepts]", "[detail]\ntiles = 4\n[concepts]", 4, "tiles must be 2 or 3"),
        ("[concepts]", "[detail]\nmargin = 2\n[concepts]", 4, "outside [0, 1]"),
        ("[concepts]", "[detail]\ntile = 2\n[concepts]", 4, "unknown key 'tile'"),
        ("at_least = 1", "at_lest = 1", 12, "unknown key 'at_lest'"),
        ("at_least = 1", "at_least = 5", 12, "from 1 to 4"),
        ("at_least = 1", "at_least = true", 12, "whole number"),
        ("red = 0.5,", "red = 1.5,", 13, "outside [-1, 1]"),
        ("red = 0.5,", "red = nan,", 13, "outside [-1, 1]"),
        ("red = 0.5,", f"red = 1{'0' * 400},", 13, "far too large"),
        ("red = 0.5,", 'red = "high",', 13, "must be a number"),
        ("red = 0.5,", "rde = 0.5,", 13, "unknown concept 'rde'"),
        ("critical = { red = 1 }", "critical = { red = 0.4 }", 14, "under its threshold"),
        ('twins = [["red", "two words"]]', 'twins = [["red"]]', 15, "pairs"),
        ('"two words" = 0.2 }', "twowords = 0.2 }", 8, "unknown concept 'twowords'"),
        ("add = { red = -0.1 }", "", 7, "needs `when` and `add`"),
        ('all = ["one"]', 'all = ["two"]', 19, "unknown group 'two'"),
        ('all = ["one"]', "all = []", 19, "needs `all`"),
        ('action = "reject"', 'action = "delete"', 20, "reject or flag"),
        ('action = "reject"', 'mode = "of"', 20, "enforce, shadow or off, not 'of'"),
        ('action = "reject"', "mode = false", 20, "enforce, shadow or off, not False"),
        ('"red"]', '""]', 4, "not empty"),
        ("weights = [1, 0.5]", "weights = [1]", 5, "2 prompts, 1 weights"),
        ("weights = [1, 0.5]", "weights = [1, 0]", 5, "from 0.001 to 1000"),
        ('[[rules]]\nname = "r"\nall = ["one"]\naction = "reject"\n', "", None, "no [[rules]]"),
        ("[groups.one]", "[groups.one", None, "line 11"),
    ],
)
def test_what_is_wrong_and_where(old: str, new: str, line: int | None, reason: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(PolicyError) as caught:
        parse_policy(GOOD.replace(old, new), "p.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert reason in message
    assert message.startswith("p.toml, line " + str(line) if line else "p.toml: ")


def test_a_line_of_a_text_that_only_looks_like_a_key_confuses_nobody() -> None:
    text = GOOD.replace('["something red", "red"]', "['''\n\"\\q\" = 1\n''']")
    with pytest.raises(PolicyError, match=r"line 22: action must be reject or flag"):
        parse_policy(text.replace('action = "reject"', 'action = "x"'))


def test_a_file_that_is_nested_too_deep() -> None:
    with pytest.raises(PolicyError, match="not valid TOML"):
        parse_policy("a = " + 100_000 * "[")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(PolicyError, match="no such policy file"):
        find_policy("nowhere/policy.toml")


def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path: Path) -> None:
    policy = parse_policy(GOOD)
    for data in (GOOD, "\ufeff" + GOOD, "\ufeff" + GOOD.replace("\n", "\r\n")):
        (tmp_path / "p.toml").write_bytes(data.encode())
        found = load_policy(tmp_path / "p.toml")
        assert (found.digest, found.text) == (policy.digest, GOOD)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path / "p.toml")
