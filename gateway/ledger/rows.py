"""Records as rows of the table `decisions`, and back. Pure code."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy import Row, String

from gateway.ledger.packing import pack_hashes, pack_views, unpack_hashes, unpack_views
from gateway.ledger.record import DecisionRecord, Rescan, ScoredBy, Timings
from gateway.ledger.tables import decisions
from imagesafety.policy import Action, Mode

T = TypeVar("T")

log = logging.getLogger("gateway")

_LENGTHS = {
    column.name: column.type.length
    for column in decisions.columns
    if isinstance(column.type, String)
}
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1


def row_of(record: DecisionRecord) -> dict[str, object]:
    """The row of a record: every column but `seq`.

    What a database would refuse is mended: text with NUL or over its column's length, numbers out
    of range or not finite. Views and hashes that can't be packed are left out.
    """
    by, timings = record.scored_by, record.timings
    return {
        "id": _text("id", record.id),
        "at": _integer(record.at, _INT64),
        "client": _text("client", record.client),
        "client_mode": str(record.client_mode),
        "sha256": record.sha256,
        "size": _integer(record.size, _INT64),
        "media_type": _text("media_type", record.media_type),
        "found_type": _text("found_type", record.found_type),
        "width": _integer(record.width, _INT32),
        "height": _integer(record.height, _INT32),
        "frames": _integer(record.frames, _INT32),
        "total_frames": _integer(record.total_frames, _INT32),
        "partial": _text("partial", record.partial),
        "decision": str(record.decision),
        "cause": _text("cause", str(record.cause)),
        "message": _text("message", record.message),
        "rule": _optional("rule", record.rule),
        "flagged": record.flagged,
        "shadow": _optional("shadow", record.shadow),
        "shadow_rule": _optional("shadow_rule", record.shadow_rule),
        "unscanned": record.unscanned,
        "rescan": _optional("rescan", record.rescan),
        "override": _optional("override", record.override),
        "repeat_of": _optional("repeat_of", record.repeat_of),
        "rescan_of": _optional("rescan_of", record.rescan_of),
        "deciding_view": record.deciding_view,
        "views": _packed(pack_views, record.views),
        "perceptual_hashes": _packed(pack_hashes, record.perceptual_hashes),
        "model": _text("model", by.model),
        "weights_digest": _text("weights_digest", by.weights_digest),
        "backend": _text("backend", record.backend),
        "concepts_digest": _text("concepts_digest", by.concepts_digest),
        "policy_digest": _text("policy_digest", by.policy_digest),
        "total_ms": _finite(timings.total) or 0.0,
        "upload_ms": _finite(timings.upload),
        "score_ms": _finite(timings.score),
        "decode_ms": _finite(timings.decode),
        "encode_ms": _finite(timings.encode),
        "reference": _optional("reference", record.reference),
        "user_agent": _optional("user_agent", record.user_agent),
    }


def record_of(row: Row[Any] | Mapping[str, Any]) -> DecisionRecord:
    """The record in a row of `decisions`. Raises ValueError for a row that we did not write."""
    values: Any = row._mapping if isinstance(row, Row) else row
    decision: Literal["accept", "reject"] = values["decision"]
    return DecisionRecord(
        id=values["id"],
        at=values["at"],
        client=values["client"],
        client_mode=Mode(values["client_mode"]),
        sha256=values["sha256"],
        size=values["size"],
        media_type=values["media_type"],
        decision=decision,
        cause=values["cause"],
        message=values["message"],
        timings=Timings(
            total=values["total_ms"],
            upload=values["upload_ms"],
            score=values["score_ms"],
            decode=values["decode_ms"],
            encode=values["encode_ms"],
        ),
        scored_by=ScoredBy(
            policy_digest=values["policy_digest"],
            concepts_digest=values["concepts_digest"],
            model=values["model"],
            weights_digest=values["weights_digest"],
        ),
        backend=values["backend"],
        rule=values["rule"],
        flagged=bool(values["flagged"]),
        shadow=Action(values["shadow"]) if values["shadow"] is not None else None,
        shadow_rule=values["shadow_rule"],
        unscanned=bool(values["unscanned"]),
        rescan=Rescan(values["rescan"]) if values["rescan"] is not None else None,
        override=values["override"],
        repeat_of=values["repeat_of"],
        rescan_of=values["rescan_of"],
        reference=values["reference"],
        user_agent=values["user_agent"],
        found_type=values["found_type"],
        width=values["width"],
        height=values["height"],
        frames=values["frames"],
        total_frames=values["total_frames"],
        partial=values["partial"],
        deciding_view=values["deciding_view"],
        views=unpack_views(values["views"]) if values["views"] is not None else (),
        perceptual_hashes=(
            unpack_hashes(values["perceptual_hashes"])
            if values["perceptual_hashes"] is not None
            else ()
        ),
    )


def readable_record(row: Row[Any]) -> DecisionRecord:
    """The record in a row; without its views and hashes where those are damaged."""
    try:
        return record_of(row)
    except ValueError as error:
        log.error("row %s of the ledger is damaged: %s", row.id, error)
        return record_of({**row._mapping, "views": None, "perceptual_hashes": None})


def _packed(pack: Callable[[Sequence[T]], bytes], items: Sequence[T]) -> bytes | None:
    try:
        return pack(items) if items else None
    except ValueError:
        return None


def _text(column: str, text: str) -> str:
    """Text that every database takes: no NUL, no half of a surrogate pair, no longer than fits."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[: _LENGTHS[column]]


def _optional(column: str, text: str | None) -> str | None:
    return _text(column, str(text)) if text is not None else None


def _integer(value: int, most: int) -> int:
    return min(max(value, -most), most)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
