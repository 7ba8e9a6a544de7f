"""Images that are only embeddings: some show a thing, and texts point at it more or less well."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from imagesafety.calibration.labelled import Labelled
from imagesafety.calibration.prompt_columns import Asked, asked_of
from imagesafety.calibration.sample import Sample
from imagesafety.evaluation.collected import UNKNOWN
from imagesafety.policy import Policy
from imagesafety.policy_file import parse_policy
from imagesafety.scores import Limits

WIDTH = 32
WEIGHTS = f"sha256:{'a' * 64}"
LIMITS = Limits(1, 1, 1, 256, 1024, 500, (), 1, 1.0, 1)
POLICY = f"""\
model = "demo"
weights_digest = "{WEIGHTS}"

[concepts]
thing = PROMPTS
other = ["other"]

[groups.g]
thresholds = {{ thing = 0.2 }}

[[rules]]
name = "r"
all = ["g"]
"""
Matrix = npt.NDArray[np.float64]


def unit(vector: Matrix) -> Matrix:
    """Of length 1, along the last axis."""
    length: Matrix = np.linalg.norm(vector, axis=-1, keepdims=True)
    return vector / length


def policy_with(prompts: str) -> Policy:
    return parse_policy(POLICY.replace("PROMPTS", prompts))


class World:
    """Axis 0 is the thing, axis 1 what texts mean by mistake, the last one is in all pictures."""

    def __init__(self, seed: int, count: int, *, views: int = 1, strength: float = 0.6) -> None:
        rng = np.random.default_rng(seed)
        self.shows = rng.random(count) < 0.3
        self.image = np.repeat(np.arange(count), rng.integers(1, views + 1, count))
        noise = rng.normal(0, 0.3, (len(self.image), WIDTH))
        noise[:, -1] += 1.5
        first = np.flatnonzero(np.diff(self.image, prepend=-1))
        # It is in one view of several.
        noise[first, 0] += strength * self.shows
        self.embeddings = unit(noise).astype(np.float32)
        self.hashes = tuple(hashlib.sha256(b"%d %d" % (seed, n)).digest() for n in range(count))

    def directions(self, texts: Mapping[str, Sequence[float]]) -> dict[str, Matrix]:
        """What each text points at, by its first coordinates."""
        found = {}
        for text, coordinates in texts.items():
            vector = np.zeros(WIDTH)
            vector[: len(coordinates)] = coordinates
            vector[-1] += 0.1
            found[text] = unit(vector)
        return found

    def labelled(
        self,
        asked: Asked,
        texts: Mapping[str, Sequence[float]],
        *,
        by_concept: bool = True,
        by_decision: bool = True,
    ) -> Labelled:
        """The material, as the service would score it."""
        directions = self.directions(texts)
        rows = []
        for concept in asked.policy.concepts:
            weighted = [prompt.weight * directions[prompt.text] for prompt in concept.prompts]
            rows.append(unit(np.sum(weighted, axis=0)))
        similarities = self.embeddings @ np.array(rows).T.astype(np.float32)
        truth = self.shows.astype(np.int8)
        unknown = np.full(len(truth), UNKNOWN, np.int8)
        return Labelled(
            Sample(similarities, self.image, self.hashes),
            self.embeddings,
            truth if by_decision else unknown,
            np.column_stack([truth if by_concept else unknown, unknown]),
        )


def asked_for(policy: Policy, *neutral: str, limits: Limits = LIMITS) -> Asked:
    return asked_of(policy, neutral, limits)
