"""An evaluation as a whole: from scored files to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from imagesafety.evaluation.collected import NO, UNKNOWN, YES, Collector
from imagesafety.evaluation.concept_figures import ConceptFigures, concept_figures
from imagesafety.evaluation.mistakes import Mistakes, worst_mistakes
from imagesafety.evaluation.policy_figures import PolicyFigures, policy_figures
from imagesafety.evaluation.problems import Kind, Problem
from imagesafety.evaluation.score_cache import CacheSection
from imagesafety.policy import Partial, Policy
from imagesafety.scores import ModelIdentity

PREVALENCE = 0.0000429
"""The share of uploads that are to be rejected, where nobody knows better: about 4 in 100 000."""
LISTED_PROBLEMS = 100


@dataclass(frozen=True)
class Subject:
    """What was evaluated, with what."""

    source: str
    policy_file: str
    policy: Policy
    model: ModelIdentity
    confidence: float = 0.95
    prevalence: float = PREVALENCE


@dataclass(frozen=True)
class Counts:
    """How many files there were, and different images among those with scores."""

    files: int
    problems: int  # files without scores
    images: int
    accept: int
    reject: int
    unlabelled: int
    left_out: int  # images whose labels contradict each other
    partial: int

    @property
    def copies(self) -> int:
        """Files whose bytes another one has, too."""
        return self.files - self.problems - self.images


@dataclass(frozen=True)
class Evaluation:
    """All that was measured."""

    subject: Subject
    backends: tuple[str, ...]
    counts: Counts
    problem_counts: Mapping[tuple[Kind, str], int]  # by label: accept, reject or ""
    problems: tuple[Problem, ...]  # the first ones
    concepts: tuple[ConceptFigures, ...]
    policy: PolicyFigures
    mistakes: Mistakes


def evaluation(subject: Subject, collector: Collector, section: CacheSection) -> Evaluation:
    """The figures of what was collected; `section` knows the scores of the worst mistakes."""
    without_scores = len(collector.problems)
    collected = collector.collected()  # finds further problems
    decisions = collected.decisions
    return Evaluation(
        subject,
        tuple(sorted(collector.backends)),
        Counts(
            files=collector.files,
            problems=without_scores,
            images=len(decisions),
            accept=int((decisions == NO).sum()),
            reject=int((decisions == YES).sum()),
            unlabelled=int((decisions == UNKNOWN).sum()),
            left_out=int((decisions > YES).sum()),
            partial=int(np.count_nonzero(collected.partial())),
        ),
        Counter(collector.problems.counts),
        tuple(
            problem for problem, _ in zip(collector.problems, range(LISTED_PROBLEMS), strict=False)
        ),
        tuple(concept_figures(subject.policy, collected, subject.confidence)),
        policy_figures(
            collector.rules.rules,
            collected,
            subject.prevalence,
            subject.confidence,
            rejects_partial=subject.policy.partial is Partial.REJECT,
        ),
        worst_mistakes(subject.policy, collector.rules, collected, section),
    )
