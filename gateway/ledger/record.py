"""One row of the ledger as a value: what was answered to an upload, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from imagesafety.policy import Action, Mode
from imagesafety.scores import PerceptualHash, View


class Rescan(StrEnum):
    """What became of a file that was accepted unscanned."""

    PENDING = "pending"  # to be fetched again from pict-rs and scanned
    SCANNED = "scanned"  # done: a later row with this one's id in `rescan_of` tells the verdict
    GONE = "gone"  # pict-rs has it no more
    FAILED = "failed"  # could not be scanned then either


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that an upload spent; None where there was no such stage.

    `upload` is from its first byte to its last, `score` from the start of the gRPC call to its end,
    `decode` and `encode` are inside that, as inference says; `total` is all, without the writing
    of this row.
    """

    total: float
    upload: float | None = None
    score: float | None = None
    decode: float | None = None
    encode: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredBy:
    """What similarities depend on beside the bytes."""

    policy_digest: str
    concepts_digest: str
    model: str
    weights_digest: str


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision with its reasons, and never with its image.

    `at` is in microseconds since 1970, UTC. `sha256` is None where the body did not come whole.
    `media_type` is the declared one, `found_type` what the bytes are. `views` and
    `perceptual_hashes` are empty where there are no scores; then `scored_by` names only the policy
    in force, or the model too where it was known. `deciding_view` is an index into `views`.
    `rule` is the rule that holds and is enforced, `shadow` what rules or clients in shadow mode
    would have made of it. `repeat_of`, `rescan_of` are ids of other records, `override` of an
    override. `reference` is what the caller calls the file (pict-rs: its identifier in the store),
    `user_agent` the program that called; None where the caller gave none.
    """

    id: str
    at: int
    client: str
    client_mode: Mode
    sha256: bytes | None
    size: int
    media_type: str
    decision: Literal["accept", "reject"]
    cause: str
    message: str
    timings: Timings
    scored_by: ScoredBy
    backend: str = ""
    rule: str | None = None
    flagged: bool = False
    shadow: Action | None = None
    shadow_rule: str | None = None
    unscanned: bool = False
    rescan: Rescan | None = None
    override: str | None = None
    repeat_of: str | None = None
    rescan_of: str | None = None
    reference: str | None = None
    user_agent: str | None = None
    found_type: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    total_frames: int = 0
    partial: str = ""
    deciding_view: int | None = None
    views: tuple[View, ...] = ()
    perceptual_hashes: tuple[PerceptualHash, ...] = ()

    @property
    def time(self) -> datetime:
        """When it was answered."""
        return datetime.fromtimestamp(self.at / 1e6, UTC)
