"""Weights for a concept's prompts, learned from labelled images. Pure code."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from imagesafety.calibration.labelled import best_views
from imagesafety.calibration.prompt_columns import Matrix
from imagesafety.calibration.sample import Booleans, Floats, Sample

DIGITS = 3  # of a weight, as it is written
STRENGTH = 0.01  # of the pull to the weights that there are
_ROUNDS = 3


def fitted_weights(
    sample: Sample, prompts: Floats, truth: Booleans, before: Matrix
) -> Matrix | None:
    """Weights (K,), 0 for prompts to leave out, the greatest 1; None if none would be left.

    `prompts` (V, K) are the similarities to each prompt alone. A logistic regression whose
    weights are not negative, and are pulled to those `before`: on each image's view with the
    greatest similarity, which depends on the weights, so it is done a few times.
    """
    start = before / before.sum()
    weights = start
    spread = max(float((prompts @ start).std()), 1e-6)
    for _ in range(_ROUNDS):
        views = best_views(sample, prompts @ weights)
        found = _regression(prompts[views].astype(np.float64) / spread, truth, start)
        if found.max() <= 0:
            return None
        weights = found / found.sum()
    relative: Matrix = weights / weights.max()
    return relative.round(DIGITS)


def _regression(features: Matrix, truth: Booleans, start: Matrix) -> Matrix:
    signs = np.where(truth, 1.0, -1.0)
    balance = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    middle = features.mean(axis=0)
    centred = features - middle

    def loss(values: Matrix) -> tuple[float, Matrix]:
        weights, bias = values[:-1], values[-1]
        margins = signs * (centred @ weights + bias)
        slopes = -signs * balance * special.expit(-margins)
        away = weights - start
        total = balance @ np.logaddexp(0, -margins) + STRENGTH * away @ away
        return float(total), np.append(centred.T @ slopes + 2 * STRENGTH * away, slopes.sum())

    bounds = [(0.0, None)] * len(start) + [(None, None)]
    found = optimize.minimize(
        loss, np.append(start, 0.0), jac=True, method="L-BFGS-B", bounds=bounds
    )
    result: Matrix = found.x[:-1]
    return result


def weighted(prompts: Floats, weights: Matrix, cosines: Matrix) -> Floats:
    """The similarities (V,) to the weighted mean of prompts, as the service gives them."""
    length = math.sqrt(max(float(weights @ cosines @ weights), 1e-12))
    values: npt.NDArray[np.float32] = (prompts @ (weights / length)).astype(np.float32)
    return values
