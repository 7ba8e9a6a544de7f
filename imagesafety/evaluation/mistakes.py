"""The mistakes of a policy that are worth looking at, and what is responsible for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesafety.evaluation.cached_scores import CachedScores, ViewPlace
from imagesafety.evaluation.collected import NO, YES, Collected
from imagesafety.evaluation.margins import Doubles, RuleMargins
from imagesafety.evaluation.score_cache import CacheSection
from imagesafety.policy import Mode, Policy, Rule

MOST = 20  # of each kind


@dataclass(frozen=True)
class Responsible:
    """A concept in a view: its adjusted similarity, beside the threshold of a group."""

    group: str
    concept: str
    similarity: float
    threshold: float
    critical: bool = False

    @property
    def reaches(self) -> bool:
        """Whether it counts."""
        return self.similarity >= self.threshold


@dataclass(frozen=True)
class Mistake:
    """An image that is answered wrongly.

    `margin` is by how much the rule holds, or fails to if it is negative. View and concepts are
    those that decide it, if the image's scores were kept.
    """

    path: Path
    sha256: str
    rule: Rule
    margin: float
    view: ViewPlace | None = None
    views: int = 0
    media_type: str = ""
    concepts: tuple[Responsible, ...] = ()


@dataclass(frozen=True)
class Mistakes:
    """The worst false rejects, the furthest over first, and false accepts, the nearest first.

    False rejects are also those of rules in shadow mode, as if they were enforced. False accepts
    are those of the rules that are enforced, if any are.
    """

    false_rejects: tuple[Mistake, ...]
    false_accepts: tuple[Mistake, ...]


def worst_mistakes(
    policy: Policy,
    rules: RuleMargins,
    collected: Collected,
    section: CacheSection,
    most: int = MOST,
) -> Mistakes:
    """The worst `most` of each kind."""
    rejecting = [index for index, rule in enumerate(rules.rules) if rule.rejects]
    # Of rules that hold, one that is enforced has done it.
    rejecting.sort(key=lambda index: rules.rules[index].mode is not Mode.ENFORCE)
    enforced = [index for index in rejecting if rules.rules[index].mode is Mode.ENFORCE]

    def worst(label: int, counting: list[int], held: bool) -> Iterator[Mistake]:
        margins, deciding = _deciding(collected, rules, counting)
        chosen = np.flatnonzero((collected.decisions == label) & ((margins >= 0) == held))
        for image in chosen[np.argsort(-margins[chosen], kind="stable")[:most]]:
            found = Mistake(
                collected.path(image),
                collected.sha256(image),
                rules.rules[deciding[image]],
                float(margins[image]),
            )
            scores = section.get(bytes.fromhex(found.sha256))
            yield _explained(found, policy, rules, scores)

    if not rejecting:
        return Mistakes((), ())
    return Mistakes(
        tuple(worst(NO, rejecting, True)), tuple(worst(YES, enforced or rejecting, False))
    )


def _deciding(
    collected: Collected, rules: RuleMargins, counting: list[int]
) -> tuple[Doubles, npt.NDArray[np.intp]]:
    """For each image the greatest margin of the rules that count, and which rule has it."""
    margins = np.full(len(collected.rows), -np.inf)
    deciding = np.zeros(len(collected.rows), np.intp)
    for index in counting:
        of_rule = collected.margins(index)
        better = of_rule > margins
        if rules.rules[index].mode is not Mode.ENFORCE:
            better &= margins < 0
        margins[better], deciding[better] = of_rule[better], index
    return margins, deciding


def _explained(
    mistake: Mistake, policy: Policy, rules: RuleMargins, scores: CachedScores | None
) -> Mistake:
    """With the view and the concepts that decide."""
    if scores is None or scores.similarities is None:
        return mistake
    view = int(rules.of(scores.similarities).views[rules.rules.index(mistake.rule)])
    values = rules.adjusted(scores.similarities)[view]
    named = {
        concept.name: float(value) for concept, value in zip(policy.concepts, values, strict=True)
    }
    concepts = [
        Responsible(name, concept, named[concept], threshold, critical)
        for name in mistake.rule.groups
        for thresholds, critical in (
            (policy.groups[name].thresholds, False),
            (policy.groups[name].critical, True),
        )
        for concept, threshold in thresholds.items()
    ]
    # What made a rule hold; for one that failed, what came nearest to it in each group.
    reached = [found for found in concepts if found.reaches]
    chosen = reached if mistake.margin >= 0 else [*reached, *_nearest(concepts)]
    return replace(
        mistake,
        view=scores.places[view] if view < len(scores.places) else None,
        views=len(scores.similarities),
        media_type=scores.media_type,
        concepts=tuple(chosen),
    )


def _nearest(concepts: list[Responsible]) -> Iterator[Responsible]:
    for group in dict.fromkeys(found.group for found in concepts):
        missing = [found for found in concepts if found.group == group and not found.reaches]
        if missing and not any(found.reaches for found in concepts if found.group == group):
            yield max(missing, key=lambda found: found.similarity - found.threshold)
