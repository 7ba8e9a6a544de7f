"""What a webhook tells of a decision. Pure code."""

from __future__ import annotations

import json
from typing import Final

from gateway.ledger.record import DecisionRecord

REJECTED: Final = "decision.rejected"
FLAGGED: Final = "decision.flagged"


def event_of(record: DecisionRecord) -> str | None:
    """The type of the event that a decision is, or None for one that nobody is told of."""
    if record.decision == "reject":
        return REJECTED
    return FLAGGED if record.flagged else None


def payload_of(record: DecisionRecord) -> str:
    """The body of the webhook: JSON of type, timestamp (RFC 3339, UTC) and data.

    Similarities have no names without the policy, so they are left out; `id` leads to them.
    """
    at = record.time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    data = {
        "id": record.id,
        "time": at,
        "client": record.client,
        "decision": record.decision,
        "cause": record.cause,
        "rule": record.rule,
        "flagged": record.flagged,
        "message": record.message,
        "sha256": record.sha256.hex() if record.sha256 is not None else None,
        "size": record.size,
        "media_type": record.media_type,
        "width": record.width,
        "height": record.height,
        "view": _deciding_view(record),
        "override": record.override,
        "repeat_of": record.repeat_of,
        "rescan_of": record.rescan_of,
        "model": record.scored_by.model,
        "policy_digest": record.scored_by.policy_digest,
    }
    body = {"type": event_of(record), "timestamp": at, "data": data}
    return json.dumps(body, separators=(",", ":"))


def _deciding_view(record: DecisionRecord) -> dict[str, object] | None:
    if record.deciding_view is None or record.deciding_view >= len(record.views):
        return None
    view = record.views[record.deciding_view]
    left, top, width, height = view.region
    return {
        "frame": view.frame_index,
        "seconds": view.frame_time,
        "region": {"left": left, "top": top, "width": width, "height": height},
    }
