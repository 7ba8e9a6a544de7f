"""Scored files that are only numbers, and policies for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagesafety.evaluation.cached_scores import FileError
from imagesafety.evaluation.material import LabelledFile, Labels
from imagesafety.evaluation.scored import ScoredFile
from imagesafety.policy_file import parse_policy

POLICY = parse_policy(
    """
    model = "demo"
    [concepts]
    red = ["red"]
    triangle = ["triangle"]
    [groups.colour]
    thresholds = { red = 0.5 }
    [groups.shape]
    thresholds = { triangle = 0.5 }
    [[rules]]
    name = "both"
    all = ["colour", "shape"]
    action = "reject"
    [[rules]]
    name = "only-shape"
    all = ["shape"]
    action = "reject"
    mode = "shadow"
    [[rules]]
    name = "colour"
    all = ["colour"]
    action = "flag"
    """
)


def scored(
    name: str,
    views: Sequence[Sequence[float]] = (),
    *,
    reject: bool | None = None,
    bytes_of: str = "",
    reason: str = "",
    **concepts: bool,
) -> ScoredFile:
    """A file, or a copy of that which `bytes_of` names; with a `reason`, one without scores."""
    return ScoredFile(
        LabelledFile(Path("/material") / name, Labels(reject, concepts)),
        digest(bytes_of or name),
        None if reason else np.array(views, np.float32),
        problem=reason,
        error=FileError(reason, "a test") if reason else None,
        backend="test",
    )


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
