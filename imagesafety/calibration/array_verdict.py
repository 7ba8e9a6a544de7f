"""`imagesafety.verdict` for many images at once: the same decisions, on arrays.

Calibration judges the same images under hundreds of thresholds, which is too much for one view
after the other. A test holds the two together on random policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from imagesafety.calibration.sample import Booleans, Sample
from imagesafety.policy import CRITICAL_COUNT, Group, Mode, Partial, Policy, Rule

VIEWS_AT_ONCE = 65_536  # bounds what is held as 64-bit numbers

_Values = dict[str, npt.NDArray[np.float64]]


def is_counted(rule: Rule) -> bool:
    """Whether a false-reject budget counts what the rule does.

    A rule in shadow mode counts as if it were enforced: shadow is where administrators begin, and
    what is measured there has to hold on the day on which they enforce it.
    """
    return rule.rejects and rule.mode is not Mode.OFF


def rejected(policy: Policy, sample: Sample) -> Booleans:
    """Which images the policy rejects: by a counted rule for any view, or for being partial."""
    hits = hits_by_rule(policy, sample, [rule for rule in policy.rules if is_counted(rule)])
    at_once = sample.partial if policy.partial is Partial.REJECT else np.zeros(len(sample), bool)
    result: Booleans = np.logical_or.reduce([at_once, *hits.values()])
    return result


def hits_by_rule(policy: Policy, sample: Sample, rules: Sequence[Rule]) -> dict[str, Booleans]:
    """For each of these rules of the policy, the images of which it holds for a view."""
    result = {rule.name: np.zeros(len(sample), bool) for rule in rules}
    needed = {group for rule in rules for group in rule.groups}
    for views, values in _adjusted(policy, sample):
        image = sample.image[views]
        held = {name: _holds(policy.groups[name], values) for name in needed}
        for rule in rules:
            holding = np.logical_and.reduce([held[group] for group in rule.groups])
            result[rule.name][image[holding]] = True
    return result


def _adjusted(policy: Policy, sample: Sample) -> Iterator[tuple[slice, _Values]]:
    """Adjusted similarities by concept, for a slice of the views after the other.

    They are 64-bit, as in `imagesafety.verdict`: sums and comparisons come out the same.
    """
    for start in range(0, len(sample.similarities), VIEWS_AT_ONCE):
        views = slice(start, start + VIEWS_AT_ONCE)
        columns = sample.similarities[views].T.astype(np.float64)
        names = (concept.name for concept in policy.concepts)
        values = dict(zip(names, columns, strict=True))
        _adjust(policy, values)
        yield views, values


def _adjust(policy: Policy, values: _Values) -> None:
    """Applies the adjustments in their order; twins over their threshold protect a concept."""
    twins = policy.twin_thresholds
    for adjustment in policy.adjustments:
        applies = np.logical_and.reduce(
            [values[concept] >= value for concept, value in adjustment.when.items()]
        )
        for concept, change in adjustment.add.items():
            changed = applies.copy()
            for twin, threshold in twins.get(concept, ()):
                changed &= values[twin] < threshold
            values[concept][changed] += change


def _holds(group: Group, values: _Values) -> Booleans:
    """For which views the group counts enough."""
    some = next(iter(group.thresholds))
    count = np.zeros(values[some].shape, np.int64)
    for concept, threshold in group.thresholds.items():
        over = values[concept] >= threshold
        if concept in group.critical:
            critical = values[concept] >= group.critical[concept]
            count += np.where(critical, CRITICAL_COUNT, over)
        else:
            count += over
    return count >= group.at_least
