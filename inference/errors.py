"""Everything that can go wrong with an image, each with its reason.

`inference.messages` says under which gRPC status code each travels. Decoder processes use this
module too, so it imports nothing of gRPC.
"""

from __future__ import annotations

from enum import Enum, auto


class Reason(Enum):
    """The reasons that scoring.proto lists, by their names there."""

    HEADER_MISSING = auto()
    HEADER_REPEATED = auto()
    INVALID_HEADER = auto()
    EMPTY_IMAGE = auto()
    UNSUPPORTED_TYPE = auto()
    TYPE_MISMATCH = auto()
    TRUNCATED = auto()
    UNDECODABLE = auto()
    DECODER_CRASHED = auto()
    DECODER_TIMEOUT = auto()
    DECODER_OUT_OF_MEMORY = auto()
    EMBEDDINGS_NOT_ALLOWED = auto()
    TOO_MANY_BYTES = auto()
    TOO_MANY_PIXELS = auto()
    TOO_MANY_FRAMES = auto()
    TOO_LONG = auto()
    QUEUE_FULL = auto()
    DEADLINE_EXCEEDED = auto()
    UPLOAD_STALLED = auto()
    DRAINING = auto()
    ENCODER_FAILED = auto()
    DECODER_KILLED = auto()


REFUSALS = frozenset(
    {Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED, Reason.DRAINING, Reason.ENCODER_FAILED}
    | {Reason.DECODER_KILLED}
)
"""Those that are no fault of the image or its sender: another replica might have an answer."""


class ScoringError(Exception):
    """An image, or a whole call, that can't be scored; the message is for the caller."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message
