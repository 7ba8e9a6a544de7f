"""Better scores from material to what calibration goes on with; this talks to the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from imagesafety.calibration.better_scores import Improvement, for_thresholds, improve
from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.gathered import (
    Gathered,
    all_labelled_files,
    count_files,
    material_of,
    scored_fully,
)
from imagesafety.calibration.labelled_gathering import GatheredLabels, gather_labels
from imagesafety.calibration.prompt_columns import Asked, asked_of
from imagesafety.calibration.scoring import Target
from imagesafety.client import ScoringClient
from imagesafety.evaluation.score_cache import ScoreCache
from imagesafety.evaluation.scored import score_material
from imagesafety.policy import Policy
from imagesafety.progress import progress
from imagesafety.service_address import ServiceAddress

NEUTRAL = ("a picture", "a photo")
_DESCRIBE_SECONDS = 30.0


@dataclass(frozen=True)
class Source:
    """Labelled images, and what administrators have said of files by their hash."""

    path: Path
    overrides: Mapping[str, bool]


async def score_for_better(
    source: Source,
    policy: Policy,
    neutral: Sequence[str],
    service: ServiceAddress,
    cache: Path,
) -> tuple[Asked, GatheredLabels]:
    """Scores all of it in one pass, with embeddings.

    Raises CalibrationError, MaterialError, and what scoring raises.
    """
    concepts = [concept.name for concept in policy.concepts]
    total = count_files(all_labelled_files(source.path, concepts))
    if not total:
        raise CalibrationError(f"{source.path}: there is no image in it")
    async with ScoringClient(service.target, service.tls) as client:
        limits = (await client.describe_model(timeout=_DESCRIBE_SECONDS)).limits
    asked = asked_of(policy, neutral, limits)
    with ScoreCache(cache) as opened, progress("scoring", total) as bar:
        scoring = score_material(
            all_labelled_files(source.path, concepts),
            scored_fully(asked.policy),
            service,
            opened,
            bar=bar,
            embeddings=True,
        )
        async with aclosing(scoring) as scored:
            return asked, await gather_labels(concepts, source.overrides, scored)


def look_for_better(
    target: Target, asked: Asked, found: GatheredLabels, date: str
) -> tuple[Improvement, Gathered]:
    """What is better, and the images that thresholds are set by then. Raises CalibrationError."""
    policy, is_same_model = target.policy, target.origin is None
    with progress("learning", len(policy.concepts)) as bar:
        improvement = improve(
            policy, asked, found.material, date, bar.advance, translates=is_same_model
        )
    accepted, rejected = for_thresholds(improvement, found.material)
    material = material_of(accepted, rejected, files=found.files, problems=found.problem_count)
    gathered = Gathered(accepted, rejected, material, found.copies, found.problems, found.backends)
    return improvement, gathered
