"""The record of a decision, as it is written. Pure code."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.decision import Decision
from gateway.evidence import Cause, Evidence, Scored
from gateway.ledger.record import DecisionRecord, Rescan, ScoredBy, Timings
from imagesafety.policy import Mode, Policy
from imagesafety.scores import ImageScores, ModelIdentity

# What may go better another time, when there is room, a service or more time again.
_WORTH_A_RESCAN = (Cause.OVERLOAD, Cause.UNAVAILABLE, Cause.DEADLINE, Cause.ERROR)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of an upload before it is examined.

    `at`, `reference` and `user_agent` as in DecisionRecord.
    """

    id: str
    at: int
    client: str
    client_mode: Mode
    sha256: bytes | None
    size: int
    media_type: str
    reference: str | None = None
    user_agent: str | None = None


def scored_by(policy: Policy, model: ModelIdentity | None) -> ScoredBy:
    """Everything that similarities under this policy from this model depend on."""
    return ScoredBy(
        policy_digest=policy.digest,
        concepts_digest=policy.concepts_digest,
        model=model.name if model is not None else policy.model,
        weights_digest=model.weights_digest if model is not None else policy.weights_digest or "",
    )


def record_of(
    decision: Decision,
    evidence: Evidence,
    facts: Facts,
    policy: Policy,
    timings: Timings,
    *,
    rescans: bool = False,
    rescan_of: str | None = None,
) -> DecisionRecord:
    """The row for the ledger. `rescans` is whether unscanned files can be fetched again."""
    scores = evidence.scores if isinstance(evidence, Scored) else None
    again = rescans and worth_a_rescan(decision) and facts.sha256 is not None and rescan_of is None
    return DecisionRecord(
        id=facts.id,
        at=facts.at,
        client=facts.client,
        client_mode=facts.client_mode,
        sha256=facts.sha256,
        size=facts.size,
        media_type=facts.media_type,
        decision=decision.answer,
        cause=decision.cause.value,
        message=decision.message,
        timings=timings,
        scored_by=scored_by(policy, scores.model if scores is not None else None),
        backend=scores.model.backend if scores is not None else "",
        rule=decision.rule,
        flagged=decision.flagged,
        shadow=decision.shadow,
        shadow_rule=decision.shadow_rule,
        unscanned=decision.unscanned,
        rescan=Rescan.PENDING if again else None,
        override=decision.override.id if decision.override is not None else None,
        repeat_of=evidence.repeat_of if isinstance(evidence, Scored) else None,
        rescan_of=rescan_of,
        reference=facts.reference,
        user_agent=facts.user_agent,
        deciding_view=decision.deciding_view,
        **(_of_scores(scores) if scores is not None else {}),  # type: ignore[arg-type]
    )


def worth_a_rescan(decision: Decision) -> bool:
    """True if the file was let in unscanned, and may be scanned another time."""
    return decision.unscanned and decision.cause in _WORTH_A_RESCAN


def timings_of(
    evidence: Evidence, *, total: float, upload: float | None, score: float | None
) -> Timings:
    """The stages of an upload, from seconds. A repeat's scores took their time another time."""
    scores = evidence.scores if isinstance(evidence, Scored) and score is not None else None
    return Timings(
        total=1000 * total,
        upload=1000 * upload if upload is not None else None,
        score=1000 * score if score is not None else None,
        decode=1000 * scores.decode_seconds if scores is not None else None,
        encode=1000 * scores.encode_seconds if scores is not None else None,
    )


def _of_scores(scores: ImageScores) -> dict[str, object]:
    return {
        "found_type": scores.media_type,
        "width": scores.width,
        "height": scores.height,
        "frames": scores.frames,
        "total_frames": scores.total_frames,
        "partial": scores.partial,
        "views": scores.views,
        "perceptual_hashes": scores.perceptual_hashes,
    }
