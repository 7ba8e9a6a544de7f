"""What adding entries comes to."""

import itertools

from gateway.overrides.change_plan import ChangePlan
from gateway.overrides.entries import NewOverride
from gateway.overrides.matching import Override
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, in_force, sha

OTHER = bytes(reversed(LOOK))


def planned(existing: list[Override], *entries: NewOverride) -> ChangePlan:
    ids = (f"new{number}" for number in itertools.count())
    plan = ChangePlan()
    plan.add(entries, existing, who="me", at=100, new_id=lambda: next(ids))
    return plan


def steps(plan: ChangePlan) -> list[tuple[str, str]]:
    return [(what, entry.id) for what, entry in plan.changes]


def test_a_new_entry_is_added() -> None:
    plan = planned([], NewOverride(DENY, sha(1), note="n"), NewOverride(ALLOW, sha(2)))
    assert [(entry.id, entry.who, entry.at) for entry in plan.added] == [
        ("new0", "me", 100),
        ("new1", "me", 101),
    ]
    assert (plan.removed, plan.unchanged) == ((), 0)


def test_what_says_nothing_new_changes_nothing() -> None:
    old = in_force(NewOverride(ALLOW, sha(1), LOOK, "r", "a meme"))
    for entry in (
        NewOverride(ALLOW, sha(1), LOOK, "r", "a meme"),
        NewOverride(ALLOW, sha(1)),  # as it is in a list of bare hashes
    ):
        plan = planned([old], entry)
        assert (plan.changes, plan.unchanged) == ([], 1)


def test_another_action_note_or_look_replaces_the_old_entry() -> None:
    old = in_force(NewOverride(ALLOW, sha(1), note="a meme"), "old")
    for entry in (
        NewOverride(DENY, sha(1)),
        NewOverride(ALLOW, sha(1), note="other words"),
        NewOverride(ALLOW, sha(1), LOOK, "r"),
    ):
        plan = planned([old], entry)
        assert steps(plan) == [("removed", "old"), ("added", "new0")]
        assert (plan.removed, [item.id for item in plan.added]) == (("old",), ["new0"])


def test_a_list_of_hashes_of_bytes_takes_no_look_out_of_force() -> None:
    denied = in_force(NewOverride(DENY, sha(1), LOOK, note="seen here"), "old")
    [new] = planned([denied], NewOverride(DENY, sha(1), note="seen elsewhere")).added
    assert (new.sha256, new.pdq, new.note) == (sha(1), LOOK, "seen elsewhere")
    allowed = in_force(NewOverride(ALLOW, sha(1), LOOK, "r"), "old")
    [new] = planned([allowed], NewOverride(ALLOW, sha(1), note="a meme")).added
    assert (new.pdq, new.rule) == (LOOK, "r")
    [new] = planned([allowed], NewOverride(DENY, sha(1))).added
    assert new.pdq is None


def test_of_entries_for_the_same_bytes_the_last_is_in_force() -> None:
    plan = planned([], NewOverride(DENY, sha(1)), NewOverride(ALLOW, sha(1)))
    assert steps(plan) == [("added", "new0"), ("removed", "new0"), ("added", "new1")]
    assert (plan.removed, [item.id for item in plan.added]) == ((), ["new1"])


def test_a_look_may_be_allowed_for_several_rules() -> None:
    old = in_force(NewOverride(ALLOW, pdq=LOOK, rule="r"), "old")
    plan = planned(
        [old],
        NewOverride(ALLOW, pdq=LOOK, rule="s"),
        NewOverride(ALLOW, pdq=LOOK, rule="r"),
        NewOverride(ALLOW, pdq=OTHER, rule="r"),
    )
    assert steps(plan) == [("added", "new0"), ("added", "new1")]
    assert plan.unchanged == 1


def test_the_last_word_on_a_look_counts() -> None:
    allows = [in_force(NewOverride(ALLOW, pdq=LOOK, rule=rule), rule) for rule in ("r", "s")]
    plan = planned(allows, NewOverride(DENY, pdq=LOOK))
    assert (plan.removed, len(plan.added)) == (("r", "s"), 1)
    deny = in_force(NewOverride(DENY, pdq=LOOK), "d")
    assert planned([deny], NewOverride(ALLOW, pdq=LOOK, rule="r")).removed == ("d",)


def test_an_entry_for_bytes_leaves_entries_for_their_look_alone() -> None:
    deny = in_force(NewOverride(DENY, pdq=LOOK), "d")
    assert planned([deny], NewOverride(ALLOW, sha(1), LOOK, "r")).removed == ()


def test_what_is_removed_in_the_same_plan_is_not_in_force() -> None:
    old = in_force(NewOverride(DENY, sha(1)), "old")
    plan = ChangePlan()
    plan.remove(old)
    plan.add([NewOverride(DENY, sha(1))], [old], who="me", at=1, new_id=lambda: "new")
    assert steps(plan) == [("removed", "old"), ("added", "new")]
