"""Looks for better scores of a policy's concepts, and keeps what wins on images held out.

Pure code. The images are parted by their hashes: on some of them candidates are learned, on others
they are compared with the scores as they are, and a part of those to be accepted is left for
thresholds, which had no say in either (`imagesafety.calibration.labelled`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.comparison import Kind, Outcome, kept, outcomes
from imagesafety.calibration.concept_edit import with_concept
from imagesafety.calibration.directions import Matrix
from imagesafety.calibration.labelled import Labelled, Part, image_maxima
from imagesafety.calibration.percentiles import Percentiles
from imagesafety.calibration.prompt_columns import Asked
from imagesafety.calibration.sample import Floats, Sample
from imagesafety.calibration.score_candidates import Candidate, Trainer
from imagesafety.calibration.translated import Scales, translated
from imagesafety.calibration.truth import Source, Truth, truth_of
from imagesafety.evaluation.collected import NO, YES
from imagesafety.policy import Concept, Policy, Probe
from imagesafety.policy_file import PolicyError, parse_policy
from imagesafety.probe_file import ProbeFile, Training, probe_bytes


@dataclass(frozen=True)
class Comparison:
    """How a concept's candidates do on the images held out: so many that show it, and others.

    `problem` says why there are none, if so.
    """

    concept: str
    source: Source
    learned: tuple[int, int]
    held_out: tuple[int, int]
    outcomes: tuple[Outcome, ...]
    kept: Kind
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Improvement:
    """The policy with the scores that won.

    `text` is the text of its file with other definitions of concepts; its numbers are those of
    before. `policy` has numbers that fit the new scores. `probes` are the files that it names.
    `similarities` (V, C) are those to its concepts. `notes` are for people.
    """

    text: str
    policy: Policy
    probes: Mapping[str, bytes]
    similarities: Floats
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether anything was found that is better."""
        return any(comparison.kept is not Kind.RAW for comparison in self.comparisons)


@dataclass(frozen=True)
class _Tried:
    """A concept with its candidates."""

    index: int
    truth: Truth
    candidates: Mapping[Kind, Candidate]


def improve(
    policy: Policy,
    asked: Asked,
    material: Labelled,
    date: str,
    advance: Callable[[], None] = lambda: None,
    *,
    translates: bool = True,
) -> Improvement:
    """Looks for better scores of each concept of which labels say enough.

    `policy` names the weights that gave the material's similarities to the concepts of `asked`.
    `date` goes into the probes' files. Calls `advance` after each concept. `translates` is whether
    the policy's numbers are of this model, so that they can follow the new scores. Raises
    CalibrationError if the policy's file can't be edited.
    """
    trainer = Trainer(asked, material)
    truths = [truth_of(policy, index, material) for index in range(len(policy.concepts))]
    tried: list[_Tried] = []
    for index, truth in enumerate(truths):
        if not truth.problem:
            found = {candidate.kind: candidate for candidate in trainer.candidates(index, truth)}
            tried.append(_Tried(index, truth, found))
        advance()
    count = sum(len(one.candidates) - 1 for one in tried)
    compared = {one.index: _compared(one, policy, material, count) for one in tried}
    comparisons = [
        compared.get(index) or _not_compared(policy.concepts[index].name, truth, material)
        for index, truth in enumerate(truths)
    ]
    chosen = {one.index: one.candidates[comparisons[one.index].kept] for one in tried}
    result = _Result(policy, material, truths, date, translates)
    return result.of(chosen, comparisons, _notes(asked, trainer))


def _compared(one: _Tried, policy: Policy, material: Labelled, count: int) -> Comparison:
    held_out = one.truth.known(material.of(Part.COMPARE))
    wanted = one.truth.labels[held_out] == YES
    scores = {
        kind: image_maxima(material.sample, candidate.similarities)[held_out]
        for kind, candidate in one.candidates.items()
    }
    found = outcomes(scores, wanted)
    return Comparison(
        policy.concepts[one.index].name,
        one.truth.source,
        one.truth.counts(material.of(Part.TRAIN)),
        one.truth.counts(material.of(Part.COMPARE)),
        found,
        kept(found, scores, wanted, count),
    )


def _not_compared(name: str, truth: Truth, material: Labelled) -> Comparison:
    counts = [truth.counts(material.of(part)) for part in (Part.TRAIN, Part.COMPARE)]
    return Comparison(name, truth.source, counts[0], counts[1], (), Kind.RAW, truth.problem)


def _notes(asked: Asked, trainer: Trainer) -> tuple[str, ...]:
    notes = []
    if not trainer.directions.is_whole:
        notes.append(
            "there are fewer views to learn from than an embedding has values, so the directions "
            "of texts are known in part only; more images make contrasts and probes better"
        )
    if asked.left_out:
        names = ", ".join(asked.left_out)
        notes.append(f"too many prompts for the service to look at one by one: {names}")
    return tuple(notes)


@dataclass(frozen=True)
class _Result:
    """Puts together what was chosen."""

    policy: Policy
    material: Labelled
    truths: Sequence[Truth]
    date: str
    translates: bool

    def of(
        self,
        chosen: Mapping[int, Candidate],
        comparisons: Sequence[Comparison],
        notes: tuple[str, ...],
    ) -> Improvement:
        concepts, text = list(self.policy.concepts), self.policy.text
        probes: dict[str, bytes] = {}
        scales: dict[str, Scales] = {}
        similarities = self.material.sample.similarities[:, : len(concepts)].copy()
        for index, candidate in chosen.items():
            if candidate.kind is Kind.RAW:
                continue
            name = concepts[index].name
            concepts[index], files = self._concept(index, candidate)
            probes |= files
            text = _edited(text, concepts[index])
            scales[name] = self._scales(similarities[:, index], candidate.similarities)
            similarities[:, index] = candidate.similarities
        moved = translated(self.policy, scales if self.translates else {})
        policy = replace(moved, concepts=tuple(concepts), text=text)
        return Improvement(text, policy, probes, similarities, tuple(comparisons), notes)

    def _concept(self, index: int, candidate: Candidate) -> tuple[Concept, dict[str, bytes]]:
        """The concept's new definition, and the files that it names."""
        name = self.policy.concepts[index].name
        if candidate.concept is not None:
            return candidate.concept, {}
        if candidate.vector is None:
            raise ValueError("a candidate without a meaning")
        data = probe_bytes(self._probe(index, candidate, candidate.vector))
        sha256 = hashlib.sha256(data).hexdigest()
        # With a digest in its name, no other probe is written over: one may be in force.
        file = f"{re.sub('[^A-Za-z0-9_-]', '_', name)}-{sha256[:8]}.probe"
        vector = tuple(float(value) for value in candidate.vector.astype(np.float32))
        digest = self.policy.weights_digest
        return Concept(name, probe=Probe(file, sha256, vector, candidate.bias, digest)), {
            file: data
        }

    def _probe(self, index: int, candidate: Candidate, vector: Matrix) -> ProbeFile:
        training, truth = self.material.of(Part.TRAIN), self.truths[index]
        showing, others = truth.counts(training)
        how = f"{candidate.how}; by labels of {truth.source}"
        digest = self.material.digest(truth.known(training), truth.labels)
        return ProbeFile(
            self.policy.model,
            self.policy.weights_digest or "",
            tuple(vector.tolist()),
            candidate.bias,
            Training(how, showing, others, digest, self.date),
        )

    def _scales(self, before: Floats, after: Floats) -> Scales:
        """By the images that are not to be rejected, without those left for thresholds."""
        sample = self.material.sample
        chosen = ~self.material.of(Part.THRESHOLDS)
        if (harmless := chosen & (self.material.rejects != YES)).sum() > 1:
            chosen = harmless
        return Scales(
            Percentiles(image_maxima(sample, before)[chosen]),
            Percentiles(image_maxima(sample, after)[chosen]),
        )


def _edited(text: str, concept: Concept) -> str:
    try:
        edited = with_concept(text, concept)
        parse_policy(edited)
    except (KeyError, PolicyError) as error:
        raise CalibrationError(f"the policy file can't be edited: {error}") from error
    return edited


def for_thresholds(improvement: Improvement, material: Labelled) -> tuple[Sample, Sample]:
    """Images to be accepted and to be rejected, with the new scores, for calibration.

    None of them was learned from. Of those to be accepted, none was compared by either, so what is
    promised of them is not bent by the choice; those to be rejected were. Where nothing new was
    found, it is all images.
    """
    sample = replace(material.sample, similarities=improvement.similarities)
    accepted, rejected = material.rejects == NO, material.rejects == YES
    if improvement.is_any:
        accepted &= material.of(Part.THRESHOLDS)
        rejected &= ~material.of(Part.TRAIN)
    return sample.part(accepted), sample.part(rejected)
