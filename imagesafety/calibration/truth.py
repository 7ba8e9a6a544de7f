"""What labels say of a concept. Pure code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from imagesafety.calibration.labelled import Labelled, Labels, Part
from imagesafety.calibration.sample import Booleans
from imagesafety.evaluation.collected import UNKNOWN, YES
from imagesafety.policy import Policy

FEWEST = 20  # images of either kind to learn from, and to compare by


class Source(StrEnum):
    """Which labels."""

    CONCEPT = "the concept"
    DECISION = "accept and reject"


@dataclass(frozen=True, eq=False)
class Truth:
    """What labels say of the images: 1, 0 or -1 for unknown.

    `problem` says why nothing can be learned from them, if so.
    """

    labels: Labels
    source: Source
    problem: str = ""

    def known(self, chosen: Booleans) -> Booleans:
        """Which of the chosen images have a label."""
        found: Booleans = chosen & (self.labels != UNKNOWN)
        return found

    def counts(self, chosen: Booleans) -> tuple[int, int]:
        """How many of the chosen images show it, and how many don't."""
        known = self.known(chosen)
        return int((self.labels[known] == YES).sum()), int((self.labels[known] != YES).sum())


def truth_of(policy: Policy, index: int, material: Labelled) -> Truth:
    """What is known of one of the policy's concepts.

    Labels of the concept itself, where there are any. Otherwise accept and reject, but only where
    they say something of it: if a rule rejects by one group alone, in which one concept is enough.
    A picture that is rejected for showing two things at once need not show what each concept means
    more than an accepted one does.
    """
    shows = material.shows[:, index]
    if (shows != UNKNOWN).any():
        return _checked(Truth(shows, Source.CONCEPT), material)
    name = policy.concepts[index].name
    if not _decides_alone(policy, name):
        problem = "no image is labelled with it, and it decides nothing alone"
        return Truth(shows, Source.CONCEPT, problem)
    return _checked(Truth(material.rejects, Source.DECISION), material)


def _decides_alone(policy: Policy, concept: str) -> bool:
    alone = {rule.groups[0] for rule in policy.rules if rule.rejects and len(rule.groups) == 1}
    groups = (policy.groups[name] for name in alone)
    return any(concept in group.thresholds and group.at_least == 1 for group in groups)


def _checked(truth: Truth, material: Labelled) -> Truth:
    for part, what in ((Part.TRAIN, "learn from"), (Part.COMPARE, "compare by")):
        showing, others = truth.counts(material.of(part))
        if min(showing, others) < FEWEST:
            problem = (
                f"too few images to {what}: {showing} that show it and {others} that don't; "
                f"{FEWEST} of either kind are the least"
            )
            return Truth(truth.labels, truth.source, problem)
    return truth
