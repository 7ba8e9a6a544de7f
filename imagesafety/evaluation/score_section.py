"""Which scores of a cache may stand for those that a policy would ask a service for."""

from __future__ import annotations

import hashlib
import json

from imagesafety.evaluation.score_cache import CacheSection, ScoreCache
from imagesafety.policy import Policy
from imagesafety.scores import ModelDescription


class OtherModelError(Exception):
    """The service has another model than the policy is for; the message is one line."""


def section_for(
    cache: ScoreCache, policy: Policy, model: ModelDescription, *, embeddings: bool = False
) -> CacheSection:
    """What the cache has for this policy's concepts, by this model. Raises OtherModelError."""
    if reason := policy.mismatch(model.model.name, model.model.weights_digest):
        raise OtherModelError(reason)
    return cache.section(
        model.model.name,
        model.model.weights_digest,
        options_digest(policy, model.limits.default_max_frames, model.model.backend),
        embeddings=embeddings,
    )


def options_digest(policy: Policy, max_frames: int, backend: str) -> str:
    """Identifies what the similarities of a file depend on beside the file and the model.

    The backend is a part of it: another one computes other last digits, and in int8 more than that.
    """
    bands = [(band.concept, band.at_least, band.at_most) for band in policy.closer_when]
    described = [policy.concepts_digest, policy.tiles, bands, max_frames, backend]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
