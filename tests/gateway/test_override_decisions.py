"""What overrides and modes make of a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.decision import Decider, Decision
from gateway.evidence import Cause, Evidence, NotLookedAt, Scored, Unscored
from gateway.overrides.matching import Override, OverrideSet
from imagesafety.policy import Action, Mode, Partial
from imagesafety.policy_file import parse_policy
from imagesafety.scores import ImageScores, ModelIdentity, PerceptualHash, View
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, flipped, override, picture, sha

POLICY = parse_policy(
    """
    model = "demo"
    concepts.a = ["a"]
    concepts.b = ["b"]
    concepts.c = ["c"]
    concepts.d = ["d"]
    groups.ga.thresholds = { a = 0.5 }
    groups.gb.thresholds = { b = 0.5 }
    groups.gc.thresholds = { c = 0.5 }
    groups.gd.thresholds = { d = 0.5 }
    [[rules]]
    name = "ra"
    all = ["ga"]
    [[rules]]
    name = "rb"
    all = ["gb"]
    [[rules]]
    name = "flag"
    all = ["gc"]
    action = "flag"
    [[rules]]
    name = "shadow"
    all = ["gd"]
    mode = "shadow"
    """
)
MODEL = ModelIdentity("demo", "sha256:0", "test")
DECIDER = Decider({cause: cause is not Cause.UNDECODABLE for cause in Cause})
FILE = sha(1)
ALLOW_RA = override("allow-ra", ALLOW, pdq=LOOK, rule="ra")
DENY_LOOK = override("deny", DENY, pdq=LOOK)


def scored(
    concepts: str,
    hashes: tuple[PerceptualHash, ...] = (picture(LOOK),),
    model: ModelIdentity = MODEL,
    partial: str = "",
    total_frames: int = 1,
) -> Scored:
    """Scores of a file that shows these concepts, by their letters."""
    similarities = tuple(0.9 if name in concepts else 0.1 for name in "abcd")
    view = View(0, 0.0, (0, 0, 1, 1), similarities)
    scores = ImageScores((view,), "image/png", 1, 1, model, partial)
    return Scored(replace(scores, perceptual_hashes=hashes, total_frames=total_frames))


def decide(evidence: Evidence, *entries: Override, mode: Mode = Mode.ENFORCE) -> Decision:
    return DECIDER.decide(POLICY, evidence, sha256=FILE, overrides=OverrideSet(entries), mode=mode)


UNSCORED = [
    Unscored(Cause.UNAVAILABLE, "gone"),
    Unscored(Cause.UNDECODABLE, "broken"),
    NotLookedAt(),
]


@pytest.mark.parametrize("evidence", [scored("ab"), scored(""), *UNSCORED])
def test_an_allow_of_these_bytes_beats_everything(evidence: Evidence) -> None:
    allow = override("1", ALLOW, sha256=FILE)
    decision = decide(evidence, allow, DENY_LOOK)
    assert (decision.status, decision.cause, decision.override) == (200, Cause.OVERRIDE, allow)
    assert (decision.unscanned, decision.rule) == (False, None)


@pytest.mark.parametrize("evidence", [scored("ab"), scored(""), *UNSCORED])
def test_a_deny_of_these_bytes_beats_everything(evidence: Evidence) -> None:
    deny = override("1", DENY, sha256=FILE)
    decision = decide(evidence, deny, ALLOW_RA)
    assert (decision.status, decision.cause, decision.override) == (406, Cause.OVERRIDE, deny)


def test_bytes_that_did_not_come_whole_match_no_override() -> None:
    entries = OverrideSet([override("1", ALLOW, sha256=FILE)])
    decision = DECIDER.decide(POLICY, scored("a"), sha256=None, overrides=entries)
    assert (decision.status, decision.cause) == (406, Cause.POLICY)


def test_what_looks_like_a_denied_picture_is_denied() -> None:
    decision = decide(scored("", (picture(flipped(LOOK, 31)),)), DENY_LOOK)
    assert (decision.status, decision.override) == (406, DENY_LOOK)
    assert decide(scored("", (picture(flipped(LOOK, 32)),)), DENY_LOOK).status == 200


def test_a_deny_beats_an_allow_of_the_same_look() -> None:
    assert decide(scored("a"), DENY_LOOK, ALLOW_RA).override == DENY_LOOK


def test_a_denied_look_is_denied_whatever_the_model_is() -> None:
    other = ModelIdentity("other", "sha256:0", "test")
    assert decide(scored("", model=other), DENY_LOOK).status == 406
    decision = decide(scored("a", model=other), ALLOW_RA)
    assert (decision.cause, decision.unscanned) == (Cause.ERROR, True)


def test_a_perceptual_allow_overrules_its_rule() -> None:
    decision = decide(scored("a"), ALLOW_RA)
    assert (decision.status, decision.cause, decision.override) == (200, Cause.OVERRIDE, ALLOW_RA)
    assert (decision.rule, decision.flagged, decision.shadow) == (None, False, None)


@pytest.mark.parametrize("concepts", ["b", "ab"])
def test_a_perceptual_allow_overrules_no_other_rule(concepts: str) -> None:
    decision = decide(scored(concepts), ALLOW_RA)
    assert (decision.status, decision.cause, decision.rule) == (406, Cause.POLICY, "rb")
    assert decision.override is None


def test_two_rules_need_two_allows() -> None:
    allow_rb = override("allow-rb", ALLOW, pdq=LOOK, rule="rb")
    assert decide(scored("ab"), ALLOW_RA, allow_rb).status == 200


def test_an_allowed_look_is_still_flagged_and_noticed_in_shadow() -> None:
    decision = decide(scored("acd"), ALLOW_RA)
    assert (decision.status, decision.cause) == (200, Cause.OVERRIDE)
    assert (decision.flagged, decision.rule) == (True, "flag")
    assert (decision.shadow, decision.shadow_rule) == (Action.REJECT, "shadow")


def test_an_allow_may_overrule_a_flag() -> None:
    allow = override("1", ALLOW, pdq=LOOK, rule="flag")
    decision = decide(scored("c"), allow)
    assert (decision.status, decision.flagged, decision.override) == (200, False, allow)


def test_an_allow_that_was_not_needed_is_not_told() -> None:
    decision = decide(scored(""), ALLOW_RA)
    assert (decision.status, decision.cause, decision.override) == (200, Cause.POLICY, None)


def test_a_video_that_contains_an_allowed_picture_is_judged() -> None:
    assert decide(scored("a", total_frames=2), ALLOW_RA).status == 406


def test_a_picture_that_shows_another_one_on_black_is_judged() -> None:
    hashes = (picture(LOOK, background="white"), picture(bytes(32), background="black"))
    assert decide(scored("a", hashes), ALLOW_RA).status == 406


@pytest.mark.parametrize(
    ("partial", "status", "cause"),
    [
        (Partial.UNDECODABLE, 406, Cause.UNDECODABLE),
        (Partial.REJECT, 406, Cause.UNDECODABLE),
        (Partial.ACCEPT, 200, Cause.OVERRIDE),
    ],
)
def test_an_allowed_look_of_a_part_says_nothing_of_the_rest(
    partial: Partial, status: int, cause: Cause
) -> None:
    decision = DECIDER.decide(
        replace(POLICY, partial=partial),
        scored("a", partial="the file ends too early"),
        sha256=FILE,
        overrides=OverrideSet([ALLOW_RA]),
    )
    assert (decision.status, decision.cause) == (status, cause)


def test_in_shadow_everything_is_accepted_and_told() -> None:
    decision = decide(scored("a"), mode=Mode.SHADOW)
    assert (decision.status, decision.rule, decision.unscanned) == (200, None, False)
    assert (decision.shadow, decision.shadow_rule) == (Action.REJECT, "ra")
    flagged = decide(scored("c"), mode=Mode.SHADOW)
    assert (flagged.status, flagged.flagged) == (200, False)
    assert (flagged.shadow, flagged.shadow_rule) == (Action.FLAG, "flag")
    broken = decide(Unscored(Cause.UNDECODABLE, "broken"), mode=Mode.SHADOW)
    assert (broken.status, broken.shadow, broken.unscanned) == (200, Action.REJECT, True)


def test_in_shadow_the_graver_of_two_rules_is_told() -> None:
    decision = decide(scored("cd"), mode=Mode.SHADOW)
    assert (decision.status, decision.shadow, decision.shadow_rule) == (
        200,
        Action.REJECT,
        "shadow",
    )


def test_in_shadow_a_deny_is_only_told() -> None:
    deny = override("1", DENY, sha256=FILE)
    for entry in (deny, DENY_LOOK):
        decision = decide(scored(""), entry, mode=Mode.SHADOW)
        assert (decision.status, decision.cause) == (200, Cause.OVERRIDE)
        assert (decision.shadow, decision.override) == (Action.REJECT, entry)


def test_in_shadow_what_is_accepted_anyway_is_as_it_is() -> None:
    for evidence, entries in (
        (scored(""), ()),
        (scored("a"), (ALLOW_RA,)),
        (scored("a"), (override("1", ALLOW, sha256=FILE),)),
    ):
        assert decide(evidence, *entries, mode=Mode.SHADOW) == decide(evidence, *entries)


def test_a_client_that_is_off_is_unscanned() -> None:
    decision = decide(NotLookedAt(), mode=Mode.OFF)
    assert (decision.status, decision.cause, decision.unscanned) == (200, Cause.POLICY, True)
    assert decision.shadow is None


def test_a_rule_in_shadow_rejects_nothing() -> None:
    decision = decide(scored("d"))
    assert (decision.status, decision.cause, decision.rule) == (200, Cause.POLICY, None)
    assert (decision.shadow, decision.shadow_rule) == (Action.REJECT, "shadow")


def test_a_repeat_is_decided_with_the_overrides_of_now() -> None:
    again = replace(scored("a"), repeat_of="f" * 32)
    assert decide(again).cause is Cause.REPEAT
    assert decide(again, ALLOW_RA).cause is Cause.OVERRIDE
    assert decide(replace(scored(""), repeat_of="f" * 32), DENY_LOOK).status == 406


def test_what_is_seen_of_a_partial_file_that_is_let_in_is_flagged_all_the_same() -> None:
    accepting = Decider(dict.fromkeys(Cause, True))
    decision = accepting.decide(
        POLICY, scored("cd", partial="cut off"), sha256=FILE, overrides=OverrideSet()
    )
    assert (decision.status, decision.cause) == (200, Cause.UNDECODABLE)
    assert (decision.flagged, decision.rule, decision.unscanned) == (True, "flag", True)
    assert decision.shadow_rule == "shadow"
