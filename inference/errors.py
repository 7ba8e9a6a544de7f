"""Everything that can go wrong with an image, each with its reason and its gRPC status code."""

from __future__ import annotations

from enum import Enum

import grpc

_Code = grpc.StatusCode


class Reason(Enum):
    """The reasons that scoring.proto lists, with the status code that each travels under."""

    HEADER_MISSING = _Code.INVALID_ARGUMENT, 1
    HEADER_REPEATED = _Code.INVALID_ARGUMENT, 2
    INVALID_HEADER = _Code.INVALID_ARGUMENT, 3
    EMPTY_IMAGE = _Code.INVALID_ARGUMENT, 4
    UNSUPPORTED_TYPE = _Code.INVALID_ARGUMENT, 5
    TYPE_MISMATCH = _Code.INVALID_ARGUMENT, 6
    TRUNCATED = _Code.INVALID_ARGUMENT, 7
    UNDECODABLE = _Code.INVALID_ARGUMENT, 8
    DECODER_CRASHED = _Code.INVALID_ARGUMENT, 9
    DECODER_TIMEOUT = _Code.INVALID_ARGUMENT, 10
    TOO_MANY_BYTES = _Code.RESOURCE_EXHAUSTED, 11
    TOO_MANY_PIXELS = _Code.RESOURCE_EXHAUSTED, 12
    QUEUE_FULL = _Code.RESOURCE_EXHAUSTED, 13
    DEADLINE_EXCEEDED = _Code.DEADLINE_EXCEEDED, 14
    DRAINING = _Code.UNAVAILABLE, 15
    ENCODER_FAILED = _Code.INTERNAL, 16

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return self.value[0]


class ScoringError(Exception):
    """An image, or a whole call, that can't be scored; the message is for the caller."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message

    def __reduce__(self) -> tuple[type[ScoringError], tuple[Reason, str]]:
        """Decoder processes raise these, so they have to survive pickling."""
        return ScoringError, (self.reason, self.message)
