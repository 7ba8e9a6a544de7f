"""What to make of similarities: the verdict of a policy, as pure code.

A view is judged by its own similarities: adjustments correct them, groups count the concepts that
reach their thresholds, and a rule holds when every one of its groups does. The image is rejected
if any view is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from imagesafety.policy import Mode, Policy, Rule


@dataclass(frozen=True)
class Hit:
    """A rule that holds, and the first view that makes it hold."""

    rule: Rule
    view_index: int


@dataclass(frozen=True)
class Verdict:
    """What the policy says of an image.

    `hit` is of the rules that are enforced: the first that rejects, else the first that flags.
    `shadow` is of the rules in shadow mode, if they would have done more than `hit` does.
    """

    hit: Hit | None
    shadow: Hit | None = None

    @property
    def rule(self) -> Rule | None:
        """The rule that decides."""
        return self.hit.rule if self.hit is not None else None

    @property
    def view_index(self) -> int | None:
        """The view that decides."""
        return self.hit.view_index if self.hit is not None else None

    @property
    def rejects(self) -> bool:
        """Whether the image must not be kept."""
        return self.hit is not None and self.hit.rule.rejects


def named(policy: Policy, similarities: Sequence[float]) -> dict[str, float]:
    """One view's similarities by concept.

    Raises ValueError if there is not one finite number for each concept of the policy: a verdict
    on anything else would be a silent accept.
    """
    if len(similarities) != len(policy.concepts):
        raise ValueError(f"{len(similarities)} similarities for {len(policy.concepts)} concepts")
    if not all(math.isfinite(value) for value in similarities):
        raise ValueError("a similarity is not a finite number")
    return {
        concept.name: value for concept, value in zip(policy.concepts, similarities, strict=True)
    }


def adjusted(policy: Policy, similarities: Mapping[str, float]) -> dict[str, float]:
    """Applies the adjustments, in the order of the file; each sees what the earlier ones made.

    That is the order of horde-safety, whose published decisions this has to reproduce.
    """
    result = dict(similarities)
    twins = policy.twin_thresholds
    for adjustment in policy.adjustments:
        if any(result[concept] < value for concept, value in adjustment.when.items()):
            continue
        for concept, value in adjustment.add.items():
            if any(result[twin] >= threshold for twin, threshold in twins.get(concept, ())):
                continue
            result[concept] += value
    return result


def rules_holding(policy: Policy, similarities: Sequence[float]) -> list[Rule]:
    """The rules that hold for a view, in the policy's order, without those that are off.

    `similarities` has one cosine per concept, in the policy's order. Raises ValueError as `named`.
    """
    values = adjusted(policy, named(policy, similarities))
    holding = {name for name, group in policy.groups.items() if group.holds(values)}
    return [
        rule
        for rule in policy.rules
        if rule.mode is not Mode.OFF and holding.issuperset(rule.groups)
    ]


def judge_view(policy: Policy, similarities: Sequence[float]) -> Rule | None:
    """The first rejecting rule that holds for a view, else the first flagging one, else None.

    Raises ValueError as `named`.
    """
    return judge_image(policy, [similarities]).rule


def judge_image(
    policy: Policy,
    views: Sequence[Sequence[float]],
    *,
    excepted: Collection[str] = (),
) -> Verdict:
    """The verdict on an image from the similarities of its views.

    Any rejected view rejects the image. Rules named in `excepted` count as not holding. Raises
    ValueError as `named`, or if there are no views.
    """
    if not views:
        raise ValueError("no views to judge")
    hits = [
        Hit(rule, index)
        for index, similarities in enumerate(views)
        for rule in rules_holding(policy, similarities)
        if rule.name not in excepted
    ]
    hit = _gravest([hit for hit in hits if hit.rule.mode is Mode.ENFORCE])
    shadow = _gravest([hit for hit in hits if hit.rule.mode is Mode.SHADOW])
    if hit is not None and (hit.rule.rejects or (shadow and not shadow.rule.rejects)):
        shadow = None
    return Verdict(hit, shadow)


def _gravest(hits: Sequence[Hit]) -> Hit | None:
    """The first hit that rejects, else the first."""
    rejecting = (hit for hit in hits if hit.rule.rejects)
    return next(rejecting, hits[0] if hits else None)
