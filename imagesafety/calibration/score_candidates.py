"""Other scores for a concept, learned from the images that are there for it. Pure code.

All of them are linear in the embedding, so the service can compute them: weights of prompts go into
the policy, everything else is a probe. The contrast against neutral prompts is one too: a margin
between two cosines is the product with the difference of both directions. Softmax over a concept
and one neutral prompt puts images in the same order as that margin does; of several neutral prompts
the mean direction is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imagesafety.calibration.comparison import Kind
from imagesafety.calibration.directions import Directions, Matrix, products, recovered
from imagesafety.calibration.labelled import Labelled, Part
from imagesafety.calibration.linear_probe import fitted_probe
from imagesafety.calibration.prompt_columns import Asked
from imagesafety.calibration.sample import Booleans, Floats, Sample
from imagesafety.calibration.truth import Truth
from imagesafety.calibration.weighted_prompts import fitted_weights, weighted
from imagesafety.evaluation.collected import YES
from imagesafety.policy import Concept, Prompt

MOST_OF_A_KIND = 4000  # images that a probe learns from: more make it slower, hardly better


@dataclass(frozen=True, eq=False)
class Candidate:
    """Other scores: `similarities` (V,) of all views, and what the service has to know for them.

    That is either `concept`, or a `vector` of length 1 with a `bias`. `how` says it for people.
    """

    kind: Kind
    similarities: Floats
    concept: Concept | None = None
    vector: Matrix | None = None
    bias: float = 0.0
    how: str = ""


class Trainer:
    """Learns from one material, for one concept after the other."""

    def __init__(self, asked: Asked, material: Labelled) -> None:
        self._asked, self._material = asked, material
        self._own = len(material.shows.T)
        self._training = material.of(Part.TRAIN)
        self.directions = self._directions()

    def _directions(self) -> Directions:
        """Those of the policy's concepts, and the neutral one behind them."""
        views = self._training[self._material.sample.image]
        columns = list(range(self._own))
        if self._asked.neutral is not None:
            columns.append(self._asked.neutral)
        similarities = self._material.sample.similarities[views][:, columns]
        biases = [concept.probe.bias if concept.probe else 0.0 for concept in self._concepts]
        biases += [0.0] * (len(columns) - self._own)
        shifted = similarities - np.array(biases, np.float32)
        return recovered(self._material.embeddings[views], shifted)

    @property
    def _concepts(self) -> tuple[Concept, ...]:
        return self._asked.policy.concepts[: self._own]

    def candidates(self, index: int, truth: Truth) -> Iterator[Candidate]:
        """The scores as they are, and all others that there can be."""
        similarities = self._material.sample.similarities[:, index]
        yield Candidate(Kind.RAW, similarities, self._concepts[index])
        chosen = self._chosen(truth)
        sample = self._material.sample.part(chosen)
        wanted = truth.labels[chosen] == YES
        if (found := self._weights(index, chosen, sample, wanted)) is not None:
            yield found
        if self._asked.neutral is not None:
            against = self.directions.rows[index] - self.directions.rows[-1]
            yield self._linear(
                Kind.CONTRAST, against, 0.0, "the text's direction less a neutral one"
            )
        embeddings = self._material.embeddings[chosen[self._material.sample.image]]
        probe = fitted_probe(sample, embeddings, wanted, self.directions.rows[index])
        how = f"logistic regression, pulled to the text by {probe.strength:g}"
        yield self._linear(Kind.PROBE, probe.direction, probe.bias, how)

    def _chosen(self, truth: Truth) -> Booleans:
        """The images to learn from; of very many, those with the first hashes."""
        known = truth.known(self._training)
        hashes = self._material.sample.hashes
        for kind in (True, False):
            members = np.flatnonzero(known & ((truth.labels == YES) == kind))
            if len(members) > MOST_OF_A_KIND:
                surplus = sorted(members, key=lambda image: hashes[image])[MOST_OF_A_KIND:]
                known[surplus] = False
        return known

    def _weights(
        self, index: int, chosen: Booleans, sample: Sample, wanted: Booleans
    ) -> Candidate | None:
        concept = self._concepts[index]
        columns = self._asked.prompts.get(concept.name)
        if columns is None:
            return None
        before = np.array([prompt.weight for prompt in concept.prompts])
        singles = list(columns.singles)
        weights = fitted_weights(sample, sample.similarities[:, singles], wanted, before)
        if weights is None:
            return None
        everything = self._material.sample.similarities
        cosines = columns.cosines(everything[self._training[self._material.sample.image]])
        prompts = tuple(
            Prompt(prompt.text, float(weight))
            for prompt, weight in zip(concept.prompts, weights, strict=True)
            if weight > 0
        )
        return Candidate(
            Kind.WEIGHTS,
            weighted(everything[:, singles], weights, cosines),
            Concept(concept.name, prompts),
        )

    def _linear(self, kind: Kind, direction: Matrix, bias: float, how: str) -> Candidate:
        vector = direction / max(float(np.linalg.norm(direction)), 1e-12)
        cosines = products(self._material.embeddings, vector)
        similarities = np.clip(cosines + np.float32(bias), -1, 1)
        return Candidate(kind, similarities, vector=vector, bias=bias, how=how)
