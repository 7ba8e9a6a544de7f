"""How well each concept's similarities tell images apart. Pure code, one concept at a time.

An image scores as its most similar view does. These are the similarities as the service gives them,
before a policy's adjustments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from imagesafety.evaluation.collected import NO, YES, Collected, Labels8
from imagesafety.evaluation.curves import Curve, ThresholdRow, curve, threshold_table
from imagesafety.evaluation.separation import Separation, separation
from imagesafety.policy import Policy


class Basis(StrEnum):
    """Which images are compared."""

    CONCEPT = "images that show it against images that do not"
    ACCEPTED = "images that show it against images to be accepted"
    DECISION = "images to be rejected against images to be accepted"


@dataclass(frozen=True)
class ConceptFigures:
    """What is measured of one concept on one basis."""

    concept: str
    basis: Basis
    positives: int
    negatives: int
    separation: Separation | None
    average_precision: float | None
    curve: Curve | None  # of some hundred thresholds
    thresholds: tuple[ThresholdRow, ...]


def concept_figures(
    policy: Policy, collected: Collected, confidence: float
) -> Iterator[ConceptFigures]:
    """The figures of each concept, on each basis that the labels give."""
    for index, concept in enumerate(policy.concepts):
        for basis, positive, negative in _bases(collected, index):
            tops = collected.tops(index)
            positives, negatives = tops[positive], tops[negative]
            found = curve(positives, negatives)
            yield ConceptFigures(
                concept.name,
                basis,
                len(positives),
                len(negatives),
                separation(positives, negatives, confidence),
                found.average_precision if found is not None else None,
                found.thinned() if found is not None else None,
                threshold_table(positives, negatives, confidence=confidence),
            )


def _bases(
    collected: Collected, concept: int
) -> Iterator[tuple[Basis, np.ndarray[tuple[int], np.dtype[np.bool_]], Labels8]]:
    shows, decisions = collected.shows(concept), collected.decisions
    showing, accepted = shows == YES, decisions == NO
    if showing.any() or (shows == NO).any():
        if (shows == NO).any():
            yield Basis.CONCEPT, showing, shows == NO
        elif accepted.any():
            yield Basis.ACCEPTED, showing, accepted & ~showing
    if accepted.any():
        yield Basis.DECISION, decisions == YES, accepted
