"""Gathers scored material for better scores: labels, similarities and embeddings.

Those are in temporary files, so that many images cost little memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.gathered import Course
from imagesafety.calibration.labelled import Labelled
from imagesafety.calibration.sample import Sample
from imagesafety.evaluation.collected import BOTH, UNKNOWN, label_code
from imagesafety.evaluation.columns import Column
from imagesafety.evaluation.scored import ScoredFile


@dataclass(frozen=True)
class GatheredLabels:
    """What was scored, and how it went. `problems` has the first of them, one line each."""

    material: Labelled
    files: int
    copies: int
    problem_count: int
    problems: tuple[str, ...]
    backends: tuple[str, ...]


@dataclass
class LabelGathering:
    """What came so far. `overrides` says of files by their hash whether they are to be rejected."""

    concepts: Sequence[str]
    overrides: Mapping[str, bool]
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    course: Course = field(default_factory=Course)
    _labels: dict[str, list[int]] = field(default_factory=dict)
    _views: list[int] = field(default_factory=list)
    _partial: list[bool] = field(default_factory=list)
    _columns: tuple[Column, Column] | None = None

    def add(self, scored: ScoredFile) -> None:
        """Takes one file. What labels of the same bytes contradict each other in is not known.

        Raises CalibrationError if there are no embeddings.
        """
        if not self.course.has_scores(scored) or scored.similarities is None:
            return
        labels = self._labels_of(scored)
        known = self._labels.get(scored.sha256)
        if known is not None:
            self.course.copies += 1
            self._merge(known, labels, scored)
            return
        if scored.embeddings is None:
            raise CalibrationError("inference gave no embeddings, of which better scores are made")
        self._labels[scored.sha256] = labels
        self._views.append(len(scored.similarities))
        self._partial.append(bool(scored.partial))
        self.course.backends.add(scored.backend)
        self._keep(scored.similarities, scored.embeddings)

    def _labels_of(self, scored: ScoredFile) -> list[int]:
        """Whether it is to be rejected, and what it shows; an override counts before a label."""
        said = scored.file.labels
        reject = self.overrides.get(scored.sha256, said.reject)
        return [
            label_code(reject),
            *(label_code(said.concepts.get(name)) for name in self.concepts),
        ]

    def _merge(self, known: list[int], labels: list[int], scored: ScoredFile) -> None:
        for place, label in enumerate(labels):
            if label == UNKNOWN:
                continue
            if known[place] not in (UNKNOWN, BOTH, label):
                what = "accept or reject" if place == 0 else self.concepts[place - 1]
                reason = f"the same bytes have another label for {what} elsewhere: neither counts"
                self.course.problem(scored, reason)
                label = BOTH
            if known[place] != BOTH:
                known[place] = label

    def _keep(self, similarities: np.ndarray, embeddings: np.ndarray) -> None:
        if self._columns is None:
            self._columns = (
                Column(self.folder, np.float32, similarities.shape[1]),
                Column(self.folder, np.float32, embeddings.shape[1]),
            )
        for column, rows in zip(self._columns, (similarities, embeddings), strict=True):
            for row in rows:
                column.append(row)

    def result(self) -> GatheredLabels:
        """What there is in the end. Raises CalibrationError if nothing is."""
        if self._columns is None:
            raise CalibrationError("no image has scores")
        similarities, embeddings = (column.read() for column in self._columns)
        labels = np.array(list(self._labels.values()), np.int8)
        labels[labels == BOTH] = UNKNOWN
        sample = Sample(
            similarities.astype(np.float32, copy=False),
            np.repeat(np.arange(len(self._views)), self._views),
            tuple(bytes.fromhex(sha256) for sha256 in self._labels),
            np.array(self._partial, bool),
        )
        return GatheredLabels(
            Labelled(
                sample, embeddings.astype(np.float32, copy=False), labels[:, 0], labels[:, 1:]
            ),
            self.course.files,
            self.course.copies,
            self.course.problem_count,
            tuple(self.course.problems),
            self.course.known_backends,
        )


async def gather_labels(
    concepts: Sequence[str], overrides: Mapping[str, bool], scored: AsyncIterable[ScoredFile]
) -> GatheredLabels:
    """All of it. Raises CalibrationError, and what `scored` raises."""
    gathering = LabelGathering(concepts, overrides)
    async for file in scored:
        gathering.add(file)
    return gathering.result()
