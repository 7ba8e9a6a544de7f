"""The directions of texts in the embedding space, which the service does not return.

A similarity is the product of a view's embedding and the text's direction, so the direction follows
from many views by least squares. It is exact as soon as the embeddings span the whole space, which
takes as many views as an embedding has values; of fewer, what lies across all of them stays
unknown and is taken as 0. Pure code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesafety.calibration.sample import Floats

Matrix = npt.NDArray[np.float64]

MOST_VIEWS = 8192  # more add nothing
_SMALLEST = 1e-6  # of the largest singular value; float32 knows no more


@dataclass(frozen=True, eq=False)
class Directions:
    """One row for each text. `is_whole` says whether the embeddings spanned the space."""

    rows: Matrix
    is_whole: bool


def recovered(embeddings: Floats, similarities: Floats) -> Directions:
    """The directions (K, D) of which `similarities` (V, K) are the products with `embeddings`."""
    some = slice(0, MOST_VIEWS)
    found, _, rank, _ = np.linalg.lstsq(
        embeddings[some].astype(np.float64), similarities[some].astype(np.float64), rcond=_SMALLEST
    )
    return Directions(found.T, int(rank) == embeddings.shape[1])


def products(embeddings: Floats, direction: Matrix) -> Floats:
    """The products (V,) of embeddings with a direction, as the service computes them."""
    values: Floats = embeddings @ direction.astype(np.float32)
    return values
