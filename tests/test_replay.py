"""Replay: what another policy would have made of what is recorded."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decision import Decider, Decision
from gateway.evidence import Cause, Scored
from gateway.overrides.matching import Override, OverrideAction, OverrideSet
from imagesafety.policy import Action, Mode, Partial, Policy
from imagesafety.policy_file import parse_policy
from imagesafety.recorded import Recorded
from imagesafety.replay import NO_MEANING, NO_POLICY, OVERRIDE_GONE, replay
from imagesafety.replay_report import Answer, Change, ReplayReport, report_content
from imagesafety.scores import ImageScores, ModelIdentity, PerceptualHash, View

OLD = """
model = "demo"
[concepts]
a = ["an a"]
b = ["a b", "b"]
[groups.ga]
thresholds = { a = 0.5 }
[groups.gb]
thresholds = { b = 0.25 }
[[rules]]
name = "stop"
all = ["ga"]
[[rules]]
name = "watch"
all = ["gb"]
action = "flag"
[[rules]]
name = "trial"
all = ["ga", "gb"]
mode = "shadow"
"""
POLICY = parse_policy(OLD)
POLICIES = {POLICY.digest: POLICY}


def recorded(*views: tuple[float, ...], **others: object) -> Recorded:
    base = Recorded(
        id="i",
        at=0,
        client="lemmy",
        client_mode=Mode.ENFORCE,
        sha256="ab" * 32,
        decision="accept",
        cause="policy",
        model="demo",
        weights_digest="sha256:0",
        policy_digest=POLICY.digest,
        similarities=views,
    )
    return replace(base, **others)  # type: ignore[arg-type]


REJECTED = recorded((0.6, 0.0), decision="reject", rule="stop")
FLAGGED = recorded((0.0, 0.3), flagged=True, rule="watch")
ACCEPTED = recorded((0.0, 0.0))


def one(new: Policy | str, *items: Recorded, **options: bool) -> ReplayReport:
    policy = parse_policy(new) if isinstance(new, str) else new
    return replay(policy, items, POLICIES, **options)


def test_a_higher_threshold_lets_in_what_was_rejected() -> None:
    report = one(OLD.replace("a = 0.5 }", "a = 0.7 }"), REJECTED, FLAGGED, ACCEPTED)
    assert (report.total, report.comparable, report.approximate) == (3, 3, 0)
    (flip,) = report.flips
    assert flip.change == Change(Answer.REJECT, Answer.ACCEPT)
    assert (flip.rule, flip.client, flip.sha256) == ("stop", "lemmy", "ab" * 32)


def test_a_lower_threshold_rejects_what_was_let_in_by_the_new_rule() -> None:
    report = one(OLD.replace("a = 0.5 }", "a = 0.0 }"), FLAGGED)
    (flip,) = report.flips
    assert (flip.change, flip.rule) == (Change(Answer.FLAG, Answer.REJECT), "stop")


def test_flags_come_and_go() -> None:
    gone = one(OLD.replace("b = 0.25 }", "b = 0.4 }"), FLAGGED)
    assert gone.flips[0].change == Change(Answer.FLAG, Answer.ACCEPT)
    come = one(OLD.replace("b = 0.25 }", "b = 0.0 }"), ACCEPTED)
    assert come.flips[0].change == Change(Answer.ACCEPT, Answer.FLAG)


def test_what_would_have_been_flips_in_shadow() -> None:
    off = OLD.replace('mode = "shadow"', 'mode = "off"').replace("a = 0.5 }", "a = 0.65 }")
    both = recorded((0.6, 0.3), client_mode=Mode.SHADOW, shadow=Action.REJECT, shadow_rule="stop")
    (flip,) = one(off, both).flips
    assert flip.change == Change(Answer.REJECT, Answer.FLAG, in_shadow=True)
    assert flip.rule == "stop"
    shadow_rule = OLD.replace('all = ["ga"]\n', 'all = ["ga"]\nmode = "shadow"\n')
    (flip,) = one(shadow_rule, REJECTED).flips
    assert flip.change == Change(Answer.REJECT, Answer.ACCEPT)


def test_a_client_of_which_nothing_is_scanned_never_flips() -> None:
    off = recorded((0.6, 0.0), client_mode=Mode.OFF)
    assert one(OLD, off).flips == ()


def test_a_concept_is_the_same_if_its_prompts_are() -> None:
    new = (
        OLD.replace('a = ["an a"]\nb = ["a b", "b"]', 'x = ["a b", "b"]\na = ["an a"]')
        .replace("b = 0.25", "x = 0.25")
        .replace("a = 0.5", "a = 0.7")
    )
    report = one(new, REJECTED, FLAGGED, ACCEPTED)
    assert report.comparable == 3
    assert [flip.change for flip in report.flips] == [Change(Answer.REJECT, Answer.ACCEPT)]


@pytest.mark.parametrize(
    ("new", "item", "reason"),
    [
        (OLD.replace("an a", "another a"), ACCEPTED, "new prompts need new scores: a"),
        (OLD.replace('["an a"]', '{ prompts = ["an a"], weights = [2] }'), ACCEPTED, "new prompts"),
        (OLD.replace('"demo"', '"other"'), ACCEPTED, "for model other"),
        (f'weights_digest = "sha256:{"1" * 64}"' + OLD, ACCEPTED, "other weights"),
        (OLD, replace(ACCEPTED, policy_digest="unknown"), NO_POLICY),
        (OLD, replace(ACCEPTED, similarities=()), NO_MEANING),
        (OLD, replace(ACCEPTED, similarities=((0.0, float("nan")),)), NO_MEANING),
        (OLD, replace(ACCEPTED, similarities=((0.0,),)), NO_MEANING),
        (OLD, replace(ACCEPTED, cause="override", override_gone=True), OVERRIDE_GONE),
    ],
)
def test_what_is_not_comparable_is_counted_with_the_reason(
    new: str, item: Recorded, reason: str
) -> None:
    report = one(new, item, item)
    assert (report.total, report.comparable, report.flips) == (2, 0, ())
    ((found, count),) = report.not_comparable.items()
    assert reason in found
    assert count == 2


def test_overrides_that_brought_the_change_already_or_forbid_it() -> None:
    allowed = replace(REJECTED, override_now="allow")
    denied = replace(REJECTED, override_now="deny")
    milder = one(OLD.replace("a = 0.5 }", "a = 0.7 }"), REJECTED, allowed, denied)
    assert [(f.corrected, f.overridden) for f in milder.flips] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert (milder.corrected, milder.overridden) == (1, 1)
    stricter = one(
        OLD.replace("a = 0.5 }", "a = 0.0 }"),
        replace(ACCEPTED, override_now="deny"),
        replace(ACCEPTED, override_now="allow"),
        replace(ACCEPTED, allowed_now=("stop",)),
        replace(ACCEPTED, allowed_now=("halt",)),
    )
    assert [(f.corrected, f.overridden) for f in stricter.flips] == [
        (True, False),
        (False, True),
        (False, True),
        (False, False),
    ]


def test_a_part_that_was_scored_for_want_of_room_is_answered_as_it_was() -> None:
    harmless = recorded((0.1, 0.0), cause="overload", partial="the closer look failed")
    refused = replace(harmless, decision="reject")
    for partial in Partial:
        new = f'partial = "{partial}"{OLD}'
        assert one(new, harmless, refused).flips == ()
    stricter = one(OLD.replace("a = 0.5 }", "a = 0.0 }"), harmless)
    assert [flip.change for flip in stricter.flips] == [Change(Answer.ACCEPT, Answer.REJECT)]


def test_what_an_override_decided_stays() -> None:
    denied = replace(ACCEPTED, decision="reject", cause="override", override_stays=True)
    report = one(OLD, denied)
    assert (report.flips, report.kept_by_override, report.comparable) == ((), 1, 1)


def test_a_perceptual_allow_excepts_only_its_rule() -> None:
    allowed = recorded((0.6, 0.0), cause="override", excepted=("stop",))
    assert one(OLD.replace("a = 0.5 }", "a = 0.1 }"), allowed).flips == ()
    other = OLD.replace('name = "stop"', 'name = "halt"')
    assert one(other, allowed).flips[0].change == Change(Answer.ACCEPT, Answer.REJECT)


@pytest.mark.parametrize(
    ("before", "after", "accepts", "flips"),
    [
        ("accept", "accept", False, False),
        ("accept", "reject", True, True),
        ("accept", "undecodable", False, True),
        ("accept", "undecodable", True, False),
    ],
)
def test_what_a_part_means_is_the_new_policys_word(
    before: str, after: str, accepts: bool, flips: bool
) -> None:
    old = parse_policy(f'partial = "{before}"' + OLD)
    item = replace(ACCEPTED, partial="cut off", policy_digest=old.digest)
    new = parse_policy(f'partial = "{after}"' + OLD)
    report = replay(new, [item], {old.digest: old}, accepts_undecodable=accepts)
    assert bool(report.flips) == flips
    if flips:
        assert report.flips[0].rule is None


def test_what_was_set_then_for_files_that_cannot_be_decoded_counts() -> None:
    new = OLD.replace("a = 0.5 }", "a = 0.7 }")
    item = replace(ACCEPTED, partial="cut off", cause="undecodable")
    assert one(new, item, accepts_undecodable=False).flips == ()
    rejected = replace(item, decision="reject")
    assert one(new, rejected, accepts_undecodable=True).flips == ()


def test_where_the_new_policy_looks_closer_elsewhere_it_is_approximate() -> None:
    near, far = recorded((0.48, 0.0)), recorded((0.1, 0.0))
    always = OLD + "[detail]\ntiles = 2\n"
    assert one(always, near, far).approximate == 2
    margin = OLD + "[detail]\ntiles = 2\nmargin = 0.05\n"
    assert one(margin, near, far).approximate == 1
    old = parse_policy(margin)
    items = [replace(item, policy_digest=old.digest) for item in (near, far)]
    assert replay(old, items, {old.digest: old}).approximate == 0
    moved = parse_policy(margin.replace("a = 0.5 }", "a = 0.15 }"))
    assert replay(moved, items, {old.digest: old}).approximate == 2
    more = parse_policy(margin.replace("tiles = 2", "tiles = 3"))
    assert replay(more, items, {old.digest: old}).approximate == 1


def test_the_report_counts_by_change_rule_and_client() -> None:
    new = OLD.replace("a = 0.5 }", "a = 0.7 }").replace("b = 0.25 }", "b = 0.4 }")
    content = report_content(
        one(new, REJECTED, replace(REJECTED, client="mbin"), replace(FLAGGED, sha256=None))
    )
    changes = content["changes"]
    assert isinstance(changes, list)
    first, second = changes
    assert first == {
        "from": "reject",
        "to": "accept",
        "in_shadow": False,
        "decisions": 2,
        "files": 1,
        "by_rule": {"stop": 2},
        "by_client": {"lemmy": 1, "mbin": 1},
    }
    assert (second["from"], second["to"], second["files"]) == ("flag", "accept", 0)


# The gateway decides, replay has to agree: on anything that the gateway decides.

THRESHOLDS = (0.1, 0.3, 0.5)
cosines = st.sampled_from([round(step / 10, 1) for step in range(-1, 8)])
rules = st.lists(
    st.tuples(
        st.sets(st.sampled_from(["ga", "gb", "gab"]), min_size=1),
        st.sampled_from(list(Action)),
        st.sampled_from(list(Mode)),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    a, b, ab = (draw(st.sampled_from(THRESHOLDS)) for _ in range(3))
    lines = [
        'model = "demo"',
        f'partial = "{draw(st.sampled_from(["undecodable", "accept", "reject"]))}"',
        "[concepts]",
        *draw(st.permutations(['a = ["an a"]', 'b = ["a b"]'])),
        f"[groups.ga]\nthresholds = {{ a = {a} }}",
        f"[groups.gb]\nthresholds = {{ b = {b} }}",
        f"[groups.gab]\nat_least = 2\nthresholds = {{ a = {ab}, b = {ab} }}",
        "[[adjustments]]\nwhen = { b = 0.2 }\nadd = { a = -0.1 }",
    ]
    for number, (groups, action, mode) in enumerate(draw(rules)):
        lines.append(f'[[rules]]\nname = "r{number}"\nall = {sorted(groups)}')
        lines.append(f'action = "{action}"\nmode = "{mode}"')
    return parse_policy("\n".join(lines))


def in_order_of(policy: Policy, views: list[dict[str, float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(view[concept.name] for concept in policy.concepts) for view in views)


LOOK = bytes(32)


def allowing(rules: tuple[str, ...]) -> OverrideSet:
    """A perceptual allow for hits of each rule."""
    return OverrideSet(
        Override(rule, OverrideAction.ALLOW, None, LOOK, rule, "", "", 0) for rule in rules
    )


def decided(
    policy: Policy,
    views: list[dict[str, float]],
    partial: str,
    mode: Mode,
    accepts: bool,
    excepted: tuple[str, ...] = (),
) -> Decision:
    answers = {cause: cause is not Cause.UNDECODABLE or accepts for cause in Cause}
    scores = ImageScores(
        tuple(View(0, 0.0, (0, 0, 1, 1), view) for view in in_order_of(policy, views)),
        "image/png",
        1,
        1,
        ModelIdentity("demo", "sha256:0", "test"),
        partial,
        perceptual_hashes=(PerceptualHash(LOOK, 100),),
    )
    overrides = allowing(excepted)
    return Decider(answers).decide(
        policy, Scored(scores), sha256=None, overrides=overrides, mode=mode
    )


def as_recorded(
    policy: Policy,
    views: list[dict[str, float]],
    partial: str,
    mode: Mode,
    decision: Decision,
    excepted: tuple[str, ...],
) -> Recorded:
    return recorded(
        *in_order_of(policy, views),
        client_mode=mode,
        decision="accept" if decision.accepted else "reject",
        cause=decision.cause.value,
        policy_digest=policy.digest,
        rule=decision.rule,
        flagged=decision.flagged,
        shadow=decision.shadow,
        shadow_rule=decision.shadow_rule,
        partial=partial,
        excepted=excepted,
    )


some_views = st.lists(st.fixed_dictionaries({"a": cosines, "b": cosines}), min_size=1, max_size=3)
cases = (some_views, st.sampled_from(["", "cut off"]), st.sampled_from(list(Mode)), st.booleans())
some_excepted = st.sampled_from([(), ("r0",), ("r1",), ("r0", "r1")])


def kinds(decision: Decision) -> tuple[Answer, Answer]:
    answer = Answer.FLAG if decision.flagged else Answer.ACCEPT
    return (
        answer if decision.accepted else Answer.REJECT,
        Answer(decision.shadow.value) if decision.shadow else Answer.ACCEPT,
    )


@given(policies(), *cases, some_excepted)
def test_the_policy_that_decided_flips_nothing(
    policy: Policy,
    views: list[dict[str, float]],
    partial: str,
    mode: Mode,
    accepts: bool,
    excepted: tuple[str, ...],
) -> None:
    decision = decided(policy, views, partial, mode, accepts, excepted)
    item = as_recorded(policy, views, partial, mode, decision, excepted)
    # Whatever the gateway is set to today.
    for today in (True, False):
        report = replay(policy, [item], {policy.digest: policy}, accepts_undecodable=today)
        assert (report.comparable, report.flips, report.approximate) == (1, (), 0)


@given(policies(), policies(), *cases, some_excepted)
def test_replay_agrees_with_deciding_anew(
    old: Policy,
    new: Policy,
    views: list[dict[str, float]],
    partial: str,
    mode: Mode,
    accepts: bool,
    excepted: tuple[str, ...],
) -> None:
    before = decided(old, views, partial, mode, accepts, excepted)
    after = decided(new, views, partial, mode, accepts, excepted)
    item = as_recorded(old, views, partial, mode, before, excepted)
    report = replay(new, [item], {old.digest: old}, accepts_undecodable=accepts)
    assert report.comparable == 1
    (was, was_shadow), (would, would_shadow) = kinds(before), kinds(after)
    if was is not would:
        assert [flip.change for flip in report.flips] == [Change(was, would)]
        graver = before if report.flips[0].change.milder else after
        assert report.flips[0].rule == graver.rule
    elif was_shadow is not would_shadow:
        (flip,) = report.flips
        assert flip.change == Change(was_shadow, would_shadow, in_shadow=True)
    else:
        assert report.flips == ()
