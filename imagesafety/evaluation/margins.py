"""By how much the rules of a policy hold for an image, or fail to.

The margin of a rule is how much higher every threshold of its groups could be (or, if it is
negative, would have to be lower) for the rule to hold just so. It is at or over 0 exactly where
`imagesafety.verdict` has the rule hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesafety.policy import CRITICAL_COUNT, Group, Mode, Policy, Rule

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Margins:
    """For each rule that is not off, its greatest margin over the views, and the view's index."""

    margins: Doubles
    views: npt.NDArray[np.intp]


class RuleMargins:
    """Computes the margins of a policy's rules; made once and used for many images."""

    def __init__(self, policy: Policy) -> None:
        self.rules: tuple[Rule, ...] = tuple(
            rule for rule in policy.rules if rule.mode is not Mode.OFF
        )
        places = {concept.name: index for index, concept in enumerate(policy.concepts)}
        self._adjustments = [
            (
                [(places[name], value) for name, value in adjustment.when.items()],
                [
                    (
                        places[name],
                        value,
                        [(places[t], at) for t, at in policy.twin_thresholds.get(name, ())],
                    )
                    for name, value in adjustment.add.items()
                ],
            )
            for adjustment in policy.adjustments
        ]
        names = sorted({group for rule in self.rules for group in rule.groups})
        self._groups = [_Counted(policy.groups[name], places) for name in names]
        self._rule_groups = [[names.index(g) for g in rule.groups] for rule in self.rules]

    def of(self, similarities: npt.NDArray[np.floating]) -> Margins:
        """The margins for an image's similarities, which have a row for each of its views."""
        each = self.of_views(similarities)
        views = each.argmax(axis=0)
        return Margins(each[views, np.arange(each.shape[1])], views)

    def of_views(self, similarities: npt.NDArray[np.floating]) -> Doubles:
        """A row for each view, a column for each rule."""
        values = self.adjusted(similarities)
        groups = [group.margins(values) for group in self._groups]
        return (
            np.stack(
                [
                    np.min([groups[index] for index in wanted], axis=0)
                    for wanted in self._rule_groups
                ],
                axis=1,
            )
            if self.rules
            else np.empty((len(values), 0))
        )

    def adjusted(self, similarities: npt.NDArray[np.floating]) -> Doubles:
        """The similarities after the policy's adjustments, as `imagesafety.verdict.adjusted`."""
        values = np.array(similarities, np.float64)
        for when, add in self._adjustments:
            holds = np.ones(len(values), bool)
            for place, value in when:
                holds &= values[:, place] >= value
            for place, value, twins in add:
                moved = holds.copy()
                for twin, threshold in twins:
                    moved &= values[:, twin] < threshold
                values[moved, place] += value
        return values


class _Counted:
    """A group as a list of thresholds, of which so many have to be reached."""

    def __init__(self, group: Group, places: dict[str, int]) -> None:
        pairs = [(places[name], value) for name, value in group.thresholds.items()]
        pairs += [
            (places[name], value)
            for name, value in group.critical.items()
            for _ in range(CRITICAL_COUNT - 1)
        ]
        self._places = [place for place, _ in pairs]
        self._thresholds = np.array([value for _, value in pairs])
        self._rank = len(pairs) - group.at_least  # of the margin that decides, from the least

    def margins(self, values: Doubles) -> Doubles:
        over = values[:, self._places] - self._thresholds
        if over.shape[1] == 1:
            only: Doubles = over[:, 0]
            return only
        partitioned: Doubles = np.partition(over, self._rank, axis=1)[:, self._rank]
        return partitioned
