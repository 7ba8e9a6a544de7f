"""The scores of one file as they are kept, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesafety.scores import ImageScores, View

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ViewPlace:
    """Where a view comes from: a frame, and the region of it as left, top, width and height."""

    frame_index: int = 0
    frame_time: float = 0.0  # seconds
    region: tuple[int, int, int, int] = (0, 0, 0, 0)
    background: str = ""


@dataclass(frozen=True, slots=True)
class FileError:
    """Why there are no scores of a file: `reason` is one of scoring.proto's, or empty."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class CachedScores:
    """The scores of one file, or what is wrong with it.

    `similarities` has a row for each view and a column for each concept, `embeddings` a row for
    each view, where they were asked for. Both are None if there is an `error`.
    """

    similarities: Floats | None = None
    embeddings: Floats | None = None
    places: tuple[ViewPlace, ...] = ()
    media_type: str = ""
    partial: str = ""
    partial_reason: str = ""
    backend: str = ""
    error: FileError | None = None


def cached_scores(scores: ImageScores, concepts: int) -> CachedScores:
    """The scores of an image, as they are kept."""
    similarities = np.array([view.similarities for view in scores.views], np.float32)
    if similarities.shape != (len(scores.views), concepts) or not len(scores.views):
        return CachedScores(error=FileError("", "the service gave no similarity for each concept"))
    if not np.isfinite(similarities).all():
        return CachedScores(error=FileError("", "a similarity is not a finite number"))
    return CachedScores(
        similarities,
        embeddings=_embeddings(scores.views),
        places=tuple(
            ViewPlace(view.frame_index, view.frame_time, view.region, view.background)
            for view in scores.views
        ),
        media_type=scores.media_type,
        partial=scores.partial,
        partial_reason=scores.partial_reason,
        backend=scores.model.backend,
    )


def _embeddings(views: Iterable[View]) -> Floats | None:
    rows = [view.embedding for view in views]
    return np.array(rows, np.float32) if all(rows) else None


def to_row(scores: CachedScores) -> tuple[str, bytes | None, bytes | None]:
    """As a row of a table: what is small as JSON, then similarities and embeddings."""
    content = {
        "shape": None if scores.similarities is None else scores.similarities.shape,
        "places": [
            [place.frame_index, place.frame_time, *place.region, place.background]
            for place in scores.places
        ],
        "media_type": scores.media_type,
        "partial": scores.partial,
        "partial_reason": scores.partial_reason,
        "backend": scores.backend,
        "error": scores.error and [scores.error.reason, scores.error.message],
    }
    return (
        json.dumps({key: value for key, value in content.items() if value}),
        _bytes(scores.similarities),
        _bytes(scores.embeddings),
    )


def from_row(content: object, similarities: object, embeddings: object) -> CachedScores:
    """What `to_row` wrote."""
    found = json.loads(str(content))
    shape = found.get("shape")
    return CachedScores(
        similarities=_floats(similarities, shape),
        embeddings=_floats(embeddings, [shape[0], -1] if shape else None),
        places=tuple(
            ViewPlace(frame, at, (left, top, width, height), background)
            for frame, at, left, top, width, height, background in found.get("places", ())
        ),
        media_type=found.get("media_type", ""),
        partial=found.get("partial", ""),
        partial_reason=found.get("partial_reason", ""),
        backend=found.get("backend", ""),
        error=FileError(*found["error"]) if "error" in found else None,
    )


def _bytes(values: Floats | None) -> bytes | None:
    return None if values is None else np.ascontiguousarray(values, dtype="<f4").tobytes()


def _floats(data: object, shape: Sequence[int] | None) -> Floats | None:
    if not isinstance(data, bytes) or shape is None:
        return None
    return np.frombuffer(data, dtype="<f4").reshape(shape)
