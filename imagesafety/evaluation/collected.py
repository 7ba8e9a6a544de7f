"""What an evaluation keeps of each scored file, in columns on disk, and what it makes of copies.

The same bytes count once, wherever and however often they lie: an image that is shared a thousand
times says no more about a policy than once. Labels of copies complete each other; where they
contradict each other, the image is left out of what is measured by that label, and is a problem.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from imagesafety.evaluation.columns import Column, Texts
from imagesafety.evaluation.margins import RuleMargins
from imagesafety.evaluation.material import shown
from imagesafety.evaluation.problems import Kind, Problem, Problems, problem_of
from imagesafety.evaluation.scored import ScoredFile
from imagesafety.policy import Policy

UNKNOWN, NO, YES, BOTH = -1, 0, 1, 2
"""Labels as the columns have them; BOTH is a contradiction."""

Labels8 = npt.NDArray[np.int8]
Rows = npt.NDArray[np.intp]


class Collector:
    """Takes scored files one after the other, in any order. Use it as a context."""

    def __init__(
        self, folder: Path, policy: Policy, overrides: Mapping[str, bool] | None = None
    ) -> None:
        """`folder` is for temporary files.

        `overrides` says of files by their hash whether they are to be rejected, and counts before
        labels: it is what somebody said who had looked at the file.
        """
        self._names = [concept.name for concept in policy.concepts]
        self._overrides = overrides or {}
        self.rules = RuleMargins(policy)
        self.problems = Problems(folder)
        self.files, self.partial = 0, 0
        self.backends: set[str] = set()
        self._paths = Texts(folder)
        self._hashes = Column(folder, np.uint8, 32)
        self._labels = Column(folder, np.int8, 1 + len(self._names))
        self._tops = Column(folder, np.float32, len(self._names))
        self._margins = Column(folder, np.float64, len(self.rules.rules))
        self._partial = Column(folder, np.uint8)
        self._columns = (self._hashes, self._labels, self._tops, self._margins, self._partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for column in (self._paths, self.problems, *self._columns):
            column.close()

    def add(self, scored: ScoredFile) -> None:
        """Keeps what is needed of a file."""
        self.files += 1
        if scored.similarities is None:
            self.problems.add(problem_of(scored))
            return
        self.backends.add(scored.backend)
        labels = scored.file.labels
        reject = self._overrides.get(scored.sha256, labels.reject)
        concepts = (label_code(labels.concepts.get(name)) for name in self._names)
        self._labels.append([label_code(reject), *concepts])
        self._paths.append(os.fsencode(scored.file.path))
        self._hashes.append(np.frombuffer(bytes.fromhex(scored.sha256), np.uint8))
        self._tops.append(scored.similarities.max(axis=0))
        self._margins.append(self.rules.of(scored.similarities).margins)
        self._partial.append((bool(scored.partial),))

    def collected(self) -> Collected:
        """What there is of all files; copies become one."""
        hashes = np.ascontiguousarray(self._hashes.read()).view(">u8")
        order, starts = _runs(hashes)
        names = ["label", *self._names]
        labels = [_merged(self._labels.read(place), order, starts) for place in range(len(names))]
        result = Collected(
            rows=order[starts],
            labels=labels,
            _hashes=self._hashes,
            _paths=self._paths,
            _tops=self._tops,
            _margins=self._margins,
            _partial=self._partial,
        )
        for name, merged in zip(names, labels, strict=True):
            for image in np.flatnonzero(merged == BOTH):
                end = starts[image + 1] if image + 1 < len(starts) else len(order)
                self._contradiction(result, int(image), order[starts[image] : end], name)
        return result

    def _contradiction(self, of: Collected, image: int, copies: Rows, name: str) -> None:
        paths = [shown(os.fsdecode(self._paths.read(int(row)))) for row in copies[:5]]
        reason = f"{name} of it contradicts that of {', '.join(paths[1:])}"
        self.problems.add(Problem(Kind.CONTRADICTION, paths[0], of.sha256(image), "", reason))


@dataclass(frozen=True, eq=False)
class Collected:
    """Different images, by index from 0: `rows` has their rows in the columns.

    `labels` has the labels for the decision first, then those for each concept.
    """

    rows: Rows
    labels: Sequence[Labels8]
    _hashes: Column
    _paths: Texts
    _tops: Column
    _margins: Column
    _partial: Column

    @property
    def decisions(self) -> Labels8:
        """Whether the images are to be rejected."""
        return self.labels[0]

    def shows(self, concept: int) -> Labels8:
        """Whether the images show a concept."""
        return self.labels[1 + concept]

    def tops(self, concept: int) -> npt.NDArray[np.float32]:
        """The greatest similarity of each image's views to a concept."""
        found: npt.NDArray[np.float32] = self._tops.read(concept)[self.rows]  # type: ignore[assignment]
        return found

    def margins(self, rule: int) -> npt.NDArray[np.float64]:
        """A rule's margin for each image."""
        found: npt.NDArray[np.float64] = self._margins.read(rule)[self.rows]  # type: ignore[assignment]
        return found

    def partial(self) -> npt.NDArray[np.bool_]:
        """Whether a part of each image could not be looked at."""
        return self._partial.read(0)[self.rows].astype(bool)

    def path(self, image: int) -> Path:
        """Where an image lies, or one of its copies."""
        return Path(os.fsdecode(self._paths.read(int(self.rows[image]))))

    def sha256(self, image: int) -> str:
        """The hash of an image, hexadecimal."""
        return bytes(self._hashes.read()[self.rows[image]]).hex()


def label_code(value: bool | None) -> int:
    """A label as the columns have it."""
    return UNKNOWN if value is None else int(value)


def _runs(hashes: npt.NDArray[np.generic]) -> tuple[Rows, Rows]:
    """An order in which equal hashes are together, and where in it each different one starts.

    Of equal ones the first row stays the first.
    """
    order = np.lexsort(hashes.T)
    rows = hashes[order]
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    starts = np.concatenate(([0], changes)) if len(order) else np.empty(0, np.intp)
    return order, starts.astype(np.intp)


def _merged(labels: npt.NDArray[np.generic], order: Rows, starts: Rows) -> Labels8:
    """One label for each image, out of those of its copies."""
    if not len(starts):
        return np.empty(0, np.int8)
    sorted_labels = labels[order].astype(np.int8)
    most = np.maximum.reduceat(sorted_labels, starts)
    least = np.minimum.reduceat(np.where(sorted_labels == UNKNOWN, BOTH, sorted_labels), starts)
    merged: Labels8 = np.where((least == NO) & (most >= YES), BOTH, most).astype(np.int8)
    return merged
