"""From what happened to what is answered."""

from collections.abc import Mapping
from dataclasses import replace

import grpc
import pytest

from gateway.decision import Decider, Decision
from gateway.evidence import Cause, Evidence, Scored, TooLargeError, why_unscored
from gateway.overrides.matching import OverrideSet
from imagesafety.client import ScoringError
from imagesafety.policy import Partial, Policy
from imagesafety.policy_file import parse_policy
from imagesafety.scores import ImageScores, ModelIdentity, View

POLICY = parse_policy(
    """
    model = "demo"
    weights_digest = "sha256:%s"
    concepts.a = ["a"]
    groups.g.thresholds = { a = 0.5 }
    [[rules]]
    name = "r"
    all = ["g"]
    """
    % ("0" * 64)
)
DEFAULTS = {cause: cause is not Cause.UNDECODABLE for cause in Cause}
REFUSING = dict.fromkeys(Cause, False)
ACCEPTING = dict.fromkeys(Cause, True)
CODE = grpc.StatusCode


def scores(
    *similarities: float, model: str = "demo", digest: str = "sha256:" + "0" * 64
) -> ImageScores:
    view = View(0, 0.0, (0, 0, 1, 1), similarities)
    return ImageScores((view,), "image/png", 1, 1, ModelIdentity(model, digest, "test"))


def decide(
    found: ImageScores | Evidence,
    policy: Policy = POLICY,
    *,
    answers: Mapping[Cause, bool] = DEFAULTS,
) -> Decision:
    evidence = Scored(found) if isinstance(found, ImageScores) else found
    return Decider(answers).decide(policy, evidence, sha256=bytes(32), overrides=OverrideSet())


def test_the_policy_decides_on_scores() -> None:
    accepted, rejected = decide(scores(0.4)), decide(scores(0.6))
    assert (accepted.status, accepted.cause, accepted.rule) == (200, Cause.POLICY, None)
    assert (rejected.status, rejected.cause, rejected.rule) == (406, Cause.POLICY, "r")
    assert rejected.body("7") == {
        "decision": "reject",
        "cause": "policy",
        "rule": "r",
        "id": "7",
        "message": "rule r holds",
    }


@pytest.mark.parametrize(
    ("policy", "similarity", "status", "cause", "unscanned"),
    [
        ("undecodable", 0.4, 406, Cause.UNDECODABLE, False),
        ("undecodable", 0.6, 406, Cause.POLICY, False),
        ("reject", 0.4, 406, Cause.UNDECODABLE, False),
        ("accept", 0.4, 200, Cause.POLICY, False),
        ("accept", 0.6, 406, Cause.POLICY, False),
    ],
)
def test_the_policy_says_what_partial_means(
    policy: str, similarity: float, status: int, cause: Cause, unscanned: bool
) -> None:
    partial = replace(scores(similarity), partial="the file ends too early")
    decision = decide(partial, replace(POLICY, partial=Partial(policy)))
    assert (decision.status, decision.cause, decision.unscanned) == (status, cause, unscanned)
    if cause is Cause.UNDECODABLE:
        assert "the file ends too early" in decision.message


def test_a_partial_file_is_let_in_where_undecodable_ones_are() -> None:
    partial = replace(scores(0.4), partial="the file ends too early")
    decision = decide(partial, answers=ACCEPTING)
    assert (decision.status, decision.unscanned) == (200, True)
    rejecting = replace(POLICY, partial=Partial.REJECT)
    assert decide(partial, rejecting, answers=ACCEPTING).status == 406


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("QUEUE_FULL", Cause.OVERLOAD),
        ("DEADLINE_EXCEEDED", Cause.DEADLINE),
        ("ENCODER_FAILED", Cause.ERROR),
        ("DECODER_KILLED", Cause.ERROR),
    ],
)
@pytest.mark.parametrize("partial", list(Partial))
def test_what_kept_inference_from_looking_closer_is_no_fault_of_the_file(
    reason: str, cause: Cause, partial: Partial
) -> None:
    policy = replace(POLICY, partial=partial)
    harmless = replace(scores(0.4), partial="the closer look failed", partial_reason=reason)
    accepted = decide(harmless, policy)
    assert (accepted.status, accepted.cause, accepted.unscanned) == (200, cause, True)
    assert decide(harmless, policy, answers=REFUSING).status == 503
    seen = replace(scores(0.6), partial="the closer look failed", partial_reason=reason)
    assert (decide(seen, policy).status, decide(seen, policy).cause) == (406, Cause.POLICY)


@pytest.mark.parametrize(
    "unusable",
    [
        scores(0.6, model="other"),
        scores(0.6, digest="sha256:1"),
        scores(float("nan")),
        scores(0.6, 0.6),
        ImageScores((), "", 1, 1, ModelIdentity("demo", "sha256:" + "0" * 64, "")),
    ],
)
def test_scores_of_another_model_or_without_meaning_are_an_error(unusable: ImageScores) -> None:
    decision = decide(unusable)
    assert (decision.accepted, decision.cause, decision.unscanned) == (True, Cause.ERROR, True)
    assert decide(unusable, answers=REFUSING).status == 503


@pytest.mark.parametrize(
    ("code", "reason", "cause", "status", "refusing"),
    [
        (CODE.INVALID_ARGUMENT, "TRUNCATED", Cause.UNDECODABLE, 406, 406),
        (CODE.INVALID_ARGUMENT, "TYPE_MISMATCH", Cause.UNDECODABLE, 406, 406),
        (CODE.INVALID_ARGUMENT, "DECODER_CRASHED", Cause.UNDECODABLE, 406, 406),
        (CODE.INVALID_ARGUMENT, "INVALID_HEADER", Cause.ERROR, 200, 503),
        (CODE.RESOURCE_EXHAUSTED, "QUEUE_FULL", Cause.OVERLOAD, 200, 503),
        (CODE.RESOURCE_EXHAUSTED, "", Cause.OVERLOAD, 200, 503),
        (CODE.UNAVAILABLE, "", Cause.UNAVAILABLE, 200, 503),
        (CODE.DEADLINE_EXCEEDED, "", Cause.DEADLINE, 200, 503),
        (CODE.INTERNAL, "ENCODER_FAILED", Cause.ERROR, 200, 503),
        (CODE.INTERNAL, "DECODER_KILLED", Cause.ERROR, 200, 503),
        (CODE.UNKNOWN, "", Cause.ERROR, 200, 503),
    ],
)
def test_causes_and_statuses(
    code: grpc.StatusCode, reason: str, cause: Cause, status: int, refusing: int
) -> None:
    evidence = why_unscored(ScoringError(code, reason, "because"))
    decision = decide(evidence)
    assert (decision.cause, decision.status, decision.message) == (cause, status, "because")
    assert decision.unscanned == (status == 200)
    refused = decide(evidence, answers=REFUSING)
    assert (refused.status, refused.unscanned) == (refusing, False)


@pytest.mark.parametrize(
    "reason", ["TOO_MANY_BYTES", "TOO_MANY_PIXELS", "TOO_MANY_FRAMES", "TOO_LONG"]
)
def test_an_image_over_a_limit_is_too_large(reason: str) -> None:
    with pytest.raises(TooLargeError):
        why_unscored(ScoringError(CODE.RESOURCE_EXHAUSTED, reason, "too big"))
