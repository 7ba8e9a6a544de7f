"""A linear probe for a concept, learned from labelled images. Pure code.

A logistic regression on the embeddings that begins at the direction of the concept's text and is
pulled to it: where the images say nothing, the text stays. How strong the pull is, is chosen by
cross-validation. An image is as similar as its most similar view, so each image counts by that
view, which depends on the probe: it is learned a few times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from imagesafety.calibration.labelled import best_views
from imagesafety.calibration.sample import Booleans, Floats, Indices, Sample

Matrix = npt.NDArray[np.float64]

STRENGTHS = tuple(10.0**exponent for exponent in (1, 0, -1, -2, -3, -4))
"""Of the pull to the text, from strong to weak."""
FOLDS = 4
_ROUNDS = 3
_STEPS = 60  # of an optimisation; it starts close to its end
_LEAST_SCALE, _MOST_SCALE = 1.0, 8.0  # of the text's logit, in standard deviations of the cosine


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A direction of length 1 and a bias: at 0, an image is as likely of the one kind as not.

    That means images of which half are of either kind.
    """

    direction: Matrix
    bias: float
    strength: float


@dataclass(frozen=True)
class _Problem:
    """The images of one regression: one view of each, and what weighs how much."""

    centred: Matrix
    middle: Matrix
    text: Matrix
    scale: float
    signs: Matrix
    balance: Matrix

    @classmethod
    def of(cls, views: Matrix, truth: Booleans, text: Matrix) -> _Problem:
        middle = views.mean(axis=0)
        centred = views - middle
        return cls(
            centred,
            middle,
            text,
            _scale(centred @ text, truth),
            np.where(truth, 1.0, -1.0),
            np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum()),
        )

    def solved(self, strength: float, start: Matrix) -> Matrix:
        """The deviation from the text, and the bias behind it, of the least loss."""

        def loss(values: Matrix) -> tuple[float, Matrix]:
            away, bias = values[:-1], values[-1]
            margins = self.signs * (self.scale * (self.centred @ (self.text + away)) + bias)
            slopes = -self.signs * self.balance * special.expit(-margins)
            total = self.balance @ np.logaddexp(0, -margins) + strength / 2 * away @ away
            gradient = self.scale * (self.centred.T @ slopes) + strength * away
            return float(total), np.append(gradient, slopes.sum())

        options = {"maxiter": _STEPS}
        found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        result: Matrix = found.x
        return result

    def path(self, strengths: tuple[float, ...]) -> Iterator[tuple[float, Matrix]]:
        """The solution for each strength, each from the one before."""
        values = np.zeros(len(self.text) + 1)
        for strength in strengths:
            values = self.solved(strength, values)
            yield strength, values

    def logits(self, views: Matrix, values: Matrix) -> Matrix:
        """What a solution says of views."""
        found: Matrix = (
            self.scale * ((views - self.middle) @ (self.text + values[:-1])) + values[-1]
        )
        return found

    def probe(self, values: Matrix, strength: float) -> LinearProbe:
        """A solution as a probe."""
        vector = self.text + values[:-1]
        length = max(float(np.linalg.norm(vector)), 1e-12)
        bias = (values[-1] / self.scale - self.middle @ vector) / length
        return LinearProbe(vector / length, float(np.clip(bias, -1, 1)), strength)


def fitted_probe(sample: Sample, embeddings: Floats, truth: Booleans, text: Matrix) -> LinearProbe:
    """The probe for what is true of these images, `text` (D,) being its direction in words.

    `embeddings` has the rows of the sample's views. Raises ValueError for fewer than FOLDS images
    of either kind.
    """
    if min(truth.sum(), (~truth).sum()) < FOLDS:
        raise ValueError("too few images for a probe")
    text = text / max(float(np.linalg.norm(text)), 1e-12)
    rows = best_views(sample, embeddings @ text.astype(np.float32))
    strength = _chosen_strength(embeddings[rows].astype(np.float64), truth, text)
    stronger = tuple(value for value in STRENGTHS if value >= strength)
    for _ in range(_ROUNDS):
        problem = _Problem.of(embeddings[rows].astype(np.float64), truth, text)
        *_, (_, values) = problem.path(stronger)
        probe = problem.probe(values, strength)
        before, rows = rows, best_views(sample, embeddings @ probe.direction.astype(np.float32))
        if np.array_equal(before, rows):
            break
    return probe


def _chosen_strength(views: Matrix, truth: Booleans, text: Matrix) -> float:
    """The strength with the least loss on images that had no say in the solution."""
    losses = dict.fromkeys(STRENGTHS, 0.0)
    fold = _folds(truth)
    for number in range(FOLDS):
        out = fold == number
        problem = _Problem.of(views[~out], truth[~out], text)
        for strength, values in problem.path(STRENGTHS):
            losses[strength] += _loss(problem.logits(views[out], values), truth[out])
    return min(STRENGTHS, key=lambda strength: losses[strength])


def _folds(truth: Booleans) -> Indices:
    """Which fold each image is in, with about as many of either kind in each."""
    result = np.empty(len(truth), np.int64)
    for kind in (truth, ~truth):
        result[kind] = np.arange(kind.sum()) % FOLDS
    return result


def _loss(logits: Matrix, truth: Booleans) -> float:
    """The mean loss, both kinds weighing the same."""
    losses = np.logaddexp(0, np.where(truth, -logits, logits))
    return float(losses[truth].mean() + losses[~truth].mean()) / 2


def _scale(cosines: Matrix, truth: Booleans) -> float:
    """By how much the text's cosine is stretched to be a logit: as its separation suggests."""
    spread = max(float(cosines.std()), 1e-6)
    apart = float(cosines[truth].mean() - cosines[~truth].mean()) / spread
    within = max(1e-3, 1 - min(apart**2, 3.99) / 4)
    return float(np.clip(apart / within, _LEAST_SCALE, _MOST_SCALE)) / spread
