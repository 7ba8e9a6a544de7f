"""Records as tests need them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.ledger.record import DecisionRecord, ScoredBy, Timings
from imagesafety.policy import Mode

_RECORD = DecisionRecord(
    id="0" * 32,
    at=1_700_000_000_123_456,
    client="IPADDR",
    client_mode=Mode.ENFORCE,
    sha256=bytes(32),
    size=1000,
    media_type="image/png",
    decision="accept",
    cause="policy",
    message="no rule holds",
    timings=Timings(total=12.5),
    scored_by=ScoredBy("policy", "concepts", "demo", "sha256:0"),
)


def record(**changes: Any) -> DecisionRecord:
    """An accepted upload, with changes."""
    return replace(_RECORD, **changes)
