"""Scores material for calibration; the part that talks to the service."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.carry import Origin
from imagesafety.calibration.gathered import (
    Gathered,
    count_files,
    gather,
    labelled_files,
    scored_fully,
)
from imagesafety.client import ScoringClient
from imagesafety.evaluation.score_cache import ScoreCache
from imagesafety.evaluation.scored import score_material
from imagesafety.policy import Policy
from imagesafety.progress import progress
from imagesafety.provenance_file import find_provenance
from imagesafety.service_address import ServiceAddress

_DESCRIBE_SECONDS = 30.0


@dataclass(frozen=True)
class Target:
    """The policy for the model that the service has; `origin` where it was for another one.

    `max_frames` is how many frames of an animation the service looks at, 0 for all.
    """

    policy: Policy
    origin: Origin | None
    max_frames: int


async def find_target(policy: Policy, service: ServiceAddress, model: str | None) -> Target:
    """For which model to calibrate; `model` is the one that the policy is to be carried to.

    Raises CalibrationError, ProvenanceError, and ScoringError where nobody answers.
    """
    async with ScoringClient(service.target, service.tls) as client:
        description = await client.describe_model(timeout=_DESCRIBE_SECONDS)
    found, max_frames = description.model, description.limits.default_max_frames
    if model is not None and model != found.name:
        raise CalibrationError(f"inference has {found.name}, not {model}")
    target = replace(policy, model=found.name, weights_digest=found.weights_digest)
    reason = policy.mismatch(found.name, found.weights_digest)
    if reason is None:
        return Target(target, None, max_frames)
    if model is None:
        raise CalibrationError(f"{reason}; --model {found.name} carries the policy to that")
    return Target(target, Origin(policy, find_provenance(policy.text)), max_frames)


async def score(
    source: Path,
    policy: Policy,
    service: ServiceAddress,
    cache: Path,
    overrides: Mapping[str, bool],
) -> Gathered:
    """All labelled images of the source with their scores, each different one once.

    `overrides` says of files by their hash whether they are to be rejected, whatever their labels.
    Raises CalibrationError, MaterialError, and what scoring raises.
    """
    concepts = [concept.name for concept in policy.concepts]
    total = count_files(labelled_files(source, concepts, overrides))
    if not total:
        raise CalibrationError(f"{source}: no image in it is labelled accept or reject")
    with ScoreCache(cache) as opened, progress("scoring", total) as bar:
        files = labelled_files(source, concepts, overrides)
        scoring = score_material(files, scored_fully(policy), service, opened, bar=bar)
        async with aclosing(scoring) as scored:
            return await gather(len(concepts), overrides, scored)
