"""What logs and traces tell of a decision: no secret, and no byte of the image. Pure code."""

from __future__ import annotations

from gateway.decision import Decision
from gateway.examination_request import ExaminationRequest


def fields_of(
    upload: ExaminationRequest, decision: Decision, seconds: float
) -> dict[str, str | int | bool]:
    """The fields of an upload's line in the log, after `seconds`; what there is none of is ""."""
    return {
        "decision": decision.answer,
        "cause": decision.cause.value,
        "rule": decision.rule or "",
        "unscanned": decision.unscanned,
        "id": upload.id,
        "client": upload.client,
        "media_type": upload.media_type,
        "bytes": upload.upload.received,
        "reference": upload.upload.name or "",
        "user_agent": upload.user_agent,
        "milliseconds": round(1000 * seconds),
    }
