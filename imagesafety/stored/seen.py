"""What a look at a file has shown, whatever a policy makes of it. Pure code."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from imagesafety.scores import ImageScores, PerceptualHash
from imagesafety.scoring_error import ScoringError
from imagesafety.stored.place import FileTroubleError, one_line

Views = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Seen:
    """The similarities of a file's views; or why there are none: `problem` and a `message`.

    `partial` says why only a part could be looked at, if so. `may_pass` is whether another look may
    show more. `sha256` is None where the bytes could not be had.
    """

    sha256: bytes | None
    problem: str = ""
    message: str = ""
    may_pass: bool = False
    partial: str = ""
    views: Views = ()
    total_frames: int = 1
    hashes: tuple[PerceptualHash, ...] = ()


def seen_by_scores(sha256: bytes, scores: ImageScores) -> Seen:
    """What the service saw."""
    return Seen(
        sha256,
        may_pass=bool(scores.partial_reason),
        partial=scores.partial,
        views=tuple(view.similarities for view in scores.views),
        total_frames=scores.total_frames,
        hashes=scores.perceptual_hashes,
    )


def seen_by_error(sha256: bytes, error: ScoringError) -> Seen:
    """Why the service saw nothing."""
    reason = error.reason or error.code.name
    return Seen(sha256, reason, one_line(Exception(error.message)), error.may_pass)


def seen_by_trouble(error: FileTroubleError) -> Seen:
    """Why the service got nothing."""
    return Seen(None, error.reason, str(error), error.may_pass)


def pack_views(views: Views) -> bytes:
    """Similarities as few bytes: the width of a view, and the floats, which have 32 bits."""
    if not views:
        return b""
    return array("I", [len(views[0])]).tobytes() + b"".join(
        array("f", view).tobytes() for view in views
    )


def unpack_views(data: bytes) -> Views:
    """What `pack_views` packed."""
    if not data:
        return ()
    header = array("I", [0]).itemsize
    width = array("I", data[:header])[0]
    values = array("f", data[header:])
    return tuple(
        tuple(values[start : start + width]) for start in range(0, len(values), max(width, 1))
    )


def pack_hashes(hashes: Sequence[PerceptualHash]) -> str:
    """Perceptual hashes as text."""
    return json.dumps([(entry.pdq.hex(), entry.quality) for entry in hashes]) if hashes else ""


def unpack_hashes(text: str) -> tuple[PerceptualHash, ...]:
    """What `pack_hashes` packed, without where the hashes are from."""
    entries = json.loads(text) if text else ()
    return tuple(PerceptualHash(bytes.fromhex(pdq), quality) for pdq, quality in entries)
