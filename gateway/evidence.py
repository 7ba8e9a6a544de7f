"""What was found out about a file: its scores, or why it has none. Pure code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import grpc

from imagesafety.client import ScoringError
from imagesafety.scores import ImageScores


class Cause(StrEnum):
    """Why the decision is what it is."""

    POLICY = "policy"
    OVERRIDE = "override"
    REPEAT = "repeat"
    UNDECODABLE = "undecodable"
    OVERLOAD = "overload"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    ERROR = "error"


DECIDED = (Cause.POLICY, Cause.OVERRIDE, Cause.REPEAT)
"""The causes that no setting accepts or rejects."""


@dataclass(frozen=True)
class Scored:
    """An image has scores: of now, or `repeat_of` an earlier decision."""

    scores: ImageScores
    repeat_of: str | None = None


@dataclass(frozen=True)
class Unscored:
    """An image has none, because of `cause`."""

    cause: Cause
    message: str


@dataclass(frozen=True)
class NotLookedAt:
    """An image has none because none are needed: an exact override, or a client with rules off."""


Evidence = Scored | Unscored | NotLookedAt


class TooLargeError(Exception):
    """The file is over a limit of the inference service."""


# What the inference service says of a file that it can't look at.
_UNDECODABLE = frozenset(
    {"UNSUPPORTED_TYPE", "TYPE_MISMATCH", "TRUNCATED", "UNDECODABLE"}
    | {"EMPTY_IMAGE", "DECODER_CRASHED", "DECODER_TIMEOUT", "DECODER_OUT_OF_MEMORY"}
)
_TOO_LARGE = frozenset({"TOO_MANY_BYTES", "TOO_MANY_PIXELS", "TOO_MANY_FRAMES", "TOO_LONG"})
_CAUSES = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Cause.OVERLOAD,
    grpc.StatusCode.UNAVAILABLE: Cause.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Cause.DEADLINE,
}


# What kept it from looking at all of a file, other than the file.
_PASSING = {
    "QUEUE_FULL": Cause.OVERLOAD,
    "DEADLINE_EXCEEDED": Cause.DEADLINE,
    "ENCODER_FAILED": Cause.ERROR,
    "DECODER_KILLED": Cause.ERROR,
}


def why_unscored(error: ScoringError) -> Unscored:
    """What an error of the inference service means. Raises TooLargeError for one over a limit."""
    if error.reason in _TOO_LARGE:
        raise TooLargeError(error.message)
    if error.reason in _UNDECODABLE:
        return Unscored(Cause.UNDECODABLE, error.message)
    return Unscored(_CAUSES.get(error.code, Cause.ERROR), error.message)


def why_partial(scores: ImageScores) -> Cause:
    """Why only a part of a file could be looked at: the file itself, or what may pass."""
    return _PASSING.get(scores.partial_reason, Cause.UNDECODABLE)
