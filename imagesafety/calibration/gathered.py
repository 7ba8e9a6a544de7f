"""Gathers scored material for calibration: different images of either kind."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from imagesafety.calibration.folder_names import meant_label
from imagesafety.calibration.sample import Sample, SampleBuilder
from imagesafety.evaluation.material import (
    ACCEPT,
    REJECT,
    LabelledFile,
    Labels,
    MaterialError,
    folder_labels,
    read_material,
    shown,
    subfolders,
    walk,
)
from imagesafety.evaluation.scored import ScoredFile
from imagesafety.policy import Detail, Policy
from imagesafety.provenance import Material

PROBLEMS_KEPT = 20


@dataclass(frozen=True)
class Gathered:
    """What was scored. `problems` has the first of them, one line each."""

    benign: Sample
    bad: Sample
    material: Material
    copies: int
    problems: tuple[str, ...]
    backends: tuple[str, ...]


def is_all_benign(source: Path, concepts: Collection[str]) -> bool:
    """Whether a source is a folder without any folder of a label: all of it is benign then.

    Raises MaterialError for a folder whose name is nearly that of a label: what it has in it would
    be taken for harmless, whatever somebody meant.
    """
    if not source.is_dir():
        return False
    folders = subfolders(source)
    labels = folder_labels(concepts)
    if any(folder.name in labels for folder in folders):
        return False
    for folder in folders:
        if meant := meant_label(folder.name, concepts):
            raise MaterialError(f"{shown(folder)}: {meant}")
    return True


def all_labelled_files(source: Path, concepts: Collection[str]) -> Iterator[LabelledFile]:
    """Every file of a source, whatever its labels say. Raises MaterialError, also in the middle."""
    if is_all_benign(source, concepts):
        return walk(source, Labels(reject=False))
    return read_material(source, concepts)


def labelled_files(
    source: Path, concepts: Collection[str], overrides: Mapping[str, bool]
) -> Iterator[LabelledFile]:
    """The files that are to be accepted or rejected, and with overrides any that may be.

    Raises MaterialError, also in the middle.
    """
    for file in all_labelled_files(source, concepts):
        if overrides or file.labels.reject is not None:
            yield file


def scored_fully(policy: Policy) -> Policy:
    """The policy as calibration asks for scores: with all tiles of every frame.

    A policy that looks closer near its thresholds only sees some of these views. Which ones
    changes with the thresholds, so all of them are measured: an image that no view rejects is
    rejected by no choice of them, and what is promised holds for whatever margin.
    """
    if policy.detail is None:
        return policy
    return replace(policy, detail=Detail(policy.detail.tiles, None))


@dataclass
class Course:
    """How scoring goes. `problems` has the first of them, one line each."""

    files: int = 0
    copies: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    backends: set[str] = field(default_factory=set)

    def has_scores(self, scored: ScoredFile) -> bool:
        """Counts a file; False for one that has a problem in place of scores."""
        self.files += 1
        if scored.similarities is not None:
            return True
        self.problem(scored, scored.problem)
        return False

    def problem(self, scored: ScoredFile, reason: str) -> None:
        """Notes why a file counts for nothing."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(f"{shown(scored.file.path)}: {reason}")

    @property
    def known_backends(self) -> tuple[str, ...]:
        """The backends that gave scores, as far as it is known."""
        return tuple(sorted(filter(None, self.backends)))


def material_of(benign: Sample, bad: Sample, *, files: int, problems: int) -> Material:
    """What is said of the images. The digest is a sum, so that it needs no order."""
    lines = [
        hash_ + bytes([rejects])
        for rejects, kind in enumerate((benign, bad))
        for hash_ in kind.hashes
    ]
    digest = sum(int.from_bytes(hashlib.sha256(line).digest(), "big") for line in lines)
    return Material(
        files=files,
        benign=len(benign),
        rejected=len(bad),
        problems=problems,
        digest=f"{digest % 2**256:064x}",
    )


@dataclass
class Gathering:
    """What came so far. `overrides` says of files by their hash whether they are to be rejected."""

    benign: SampleBuilder
    bad: SampleBuilder
    overrides: Mapping[str, bool] = field(default_factory=dict)
    course: Course = field(default_factory=Course)
    left_out: set[bytes] = field(default_factory=set)  # labelled both ways

    def add(self, scored: ScoredFile) -> None:
        """Takes one file. Bytes that are labelled both ways count for neither."""
        if not self.course.has_scores(scored) or scored.similarities is None:
            return
        rejects = self.overrides.get(scored.sha256, scored.file.labels.reject)
        if rejects is None:
            return
        mine, other = (self.bad, self.benign) if rejects else (self.benign, self.bad)
        sha256 = bytes.fromhex(scored.sha256)
        if sha256 in other:
            self.left_out.add(sha256)
            label = REJECT if rejects else ACCEPT
            reason = f"labelled {label}, and the same bytes have the other label elsewhere"
            self.course.problem(scored, f"{reason}: left out")
            return
        if not mine.add(sha256, scored.similarities, partial=bool(scored.partial)):
            self.course.copies += 1
            return
        self.course.backends.add(scored.backend)

    def result(self) -> Gathered:
        """What there is in the end."""
        benign, bad = (self._agreed(kind.build()) for kind in (self.benign, self.bad))
        course = self.course
        material = material_of(benign, bad, files=course.files, problems=course.problem_count)
        return Gathered(
            benign, bad, material, course.copies, tuple(course.problems), course.known_backends
        )

    def _agreed(self, sample: Sample) -> Sample:
        """Those that no label contradicts."""
        if not self.left_out:
            return sample
        return sample.part(np.array([hash_ not in self.left_out for hash_ in sample.hashes], bool))


async def gather(
    concepts: int, overrides: Mapping[str, bool], scored: AsyncIterable[ScoredFile]
) -> Gathered:
    """All of it. Raises what `scored` raises."""
    gathering = Gathering(SampleBuilder(concepts), SampleBuilder(concepts), overrides)
    async for file in scored:
        gathering.add(file)
    return gathering.result()


def count_files(files: Iterable[LabelledFile]) -> int:
    """How many there are."""
    return sum(1 for _ in files)
