"""Gathers scored material for calibration: different images of either kind."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.sample import Sample, SampleBuilder
from imagesafety.evaluation.material import (
    ACCEPT,
    BENIGN,
    NOT,
    REJECT,
    LabelledFile,
    Labels,
    read_material,
    shown,
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
    """Whether a source is a folder without any folder of a label: all of it is benign then."""
    labels = {ACCEPT, BENIGN, REJECT, *concepts, *(f"{NOT}{concept}" for concept in concepts)}
    return source.is_dir() and not any((source / label).is_dir() for label in labels)


def labelled_files(source: Path, concepts: Collection[str]) -> Iterator[LabelledFile]:
    """The files that are to be accepted or rejected. Raises MaterialError, also in the middle."""
    if is_all_benign(source, concepts):
        yield from walk(source, Labels(reject=False))
        return
    for file in read_material(source, concepts):
        if file.labels.reject is not None:
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
class Gathering:
    """What came so far. The digest is a sum, so that it needs no list and no order."""

    benign: SampleBuilder
    bad: SampleBuilder
    files: int = 0
    copies: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    backends: set[str] = field(default_factory=set)
    digest: int = 0

    def add(self, scored: ScoredFile) -> None:
        """Takes one file. Raises CalibrationError for bytes that are labelled both ways."""
        self.files += 1
        if scored.similarities is None:
            self.problem_count += 1
            if len(self.problems) < PROBLEMS_KEPT:
                self.problems.append(f"{shown(scored.file.path)}: {scored.problem}")
            return
        rejects = bool(scored.file.labels.reject)
        mine, other = (self.bad, self.benign) if rejects else (self.benign, self.bad)
        sha256 = bytes.fromhex(scored.sha256)
        if sha256 in other:
            path, label = shown(scored.file.path), REJECT if rejects else ACCEPT
            raise CalibrationError(
                f"{path}: labelled {label}, and the same bytes have the other label elsewhere"
            )
        if not mine.add(sha256, scored.similarities):
            self.copies += 1
            return
        self.backends.add(scored.backend)
        number = hashlib.sha256(sha256 + bytes([rejects])).digest()
        self.digest = (self.digest + int.from_bytes(number, "big")) % 2**256

    def result(self) -> Gathered:
        """What there is in the end."""
        benign, bad = self.benign.build(), self.bad.build()
        material = Material(
            files=self.files,
            benign=len(benign),
            rejected=len(bad),
            problems=self.problem_count,
            digest=f"{self.digest:064x}",
        )
        backends = tuple(sorted(filter(None, self.backends)))
        return Gathered(benign, bad, material, self.copies, tuple(self.problems), backends)


async def gather(concepts: int, scored: AsyncIterable[ScoredFile]) -> Gathered:
    """All of it. Raises CalibrationError, and what `scored` raises."""
    gathering = Gathering(SampleBuilder(concepts), SampleBuilder(concepts))
    async for file in scored:
        gathering.add(file)
    return gathering.result()


def count_files(files: Iterable[LabelledFile]) -> int:
    """How many there are."""
    return sum(1 for _ in files)
