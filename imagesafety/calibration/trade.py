"""The best trade between both kinds of mistake, where there are images of both kinds.

Each group's strictness is chosen on one half of the images and judged by the other half, which had
no say in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from imagesafety.calibration.array_verdict import rejected
from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.percentiles import Percentiles, percentiles_by_concept
from imagesafety.calibration.sample import Sample
from imagesafety.calibration.strictness import Family
from imagesafety.policy import Policy

FEWEST_OF_A_HALF = 20  # of either kind
_EVERY, _STRICTEST = 5, 1e-8  # of the family's levels that are tried
_MOST_SWEEPS = 5


@dataclass(frozen=True)
class Costs:
    """What a mistake of either kind costs, and which share of uploads is to be rejected."""

    false_reject: float
    false_accept: float
    prevalence: float

    def expected(self, false_rejects: float, false_accepts: float) -> float:
        """What an upload costs on average, at these rates of mistakes."""
        wrong_reject = (1 - self.prevalence) * self.false_reject * false_rejects
        return wrong_reject + self.prevalence * self.false_accept * false_accepts


@dataclass(frozen=True)
class Counted:
    """So many of so many."""

    count: int
    images: int


@dataclass(frozen=True)
class Trade:
    """The levels of the groups that were chosen, and the mistakes on the images held out."""

    family: Family
    policy: Policy
    levels: dict[str, float]
    false_rejects: Counted
    false_accepts: Counted
    held_out: Sample
    """The benign ones."""


def best_trade(
    policy: Policy,
    benign: Sample,
    bad: Sample,
    costs: Costs,
    base: Callable[[Mapping[str, Percentiles]], Policy] | None = None,
) -> Trade:
    """The policy of the lowest cost. Raises CalibrationError for too few images.

    `base` makes another policy to start from, once percentiles are known.
    """
    (benign_half, benign_rest), (bad_half, bad_rest) = benign.halves(), bad.halves()
    halves = {"to be accepted": (benign_half, benign_rest), "to be rejected": (bad_half, bad_rest)}
    for name, parts in halves.items():
        if min(map(len, parts)) < FEWEST_OF_A_HALF:
            raise CalibrationError(
                f"too few images {name}: {sum(map(len, parts))}; a trade needs about "
                f"{3 * FEWEST_OF_A_HALF} of either kind"
            )
    names = [concept.name for concept in policy.concepts]
    percentiles = percentiles_by_concept(names, benign_half)
    family = Family(policy if base is None else base(percentiles), percentiles)
    levels = _search(family, benign_half, bad_half, costs)
    chosen = family.at_levels(levels)
    missed = len(bad_rest) - int(rejected(chosen, bad_rest).sum())
    return Trade(
        family=family,
        policy=chosen,
        levels=levels,
        false_rejects=Counted(int(rejected(chosen, benign_rest).sum()), len(benign_rest)),
        false_accepts=Counted(missed, len(bad_rest)),
        held_out=benign_rest,
    )


def _search(family: Family, benign: Sample, bad: Sample, costs: Costs) -> dict[str, float]:
    """The best level for all groups, and from there on group by group while that helps."""

    def cost(levels: dict[str, float]) -> float:
        policy = family.at_levels(levels)
        false_accepts = 1 - float(rejected(policy, bad).mean())
        return costs.expected(float(rejected(policy, benign).mean()), false_accepts)

    tried = [level for level in family.levels[::_EVERY] if level >= _STRICTEST]
    level, lowest = _cheapest(lambda level: cost(dict.fromkeys(family.moved, level)), tried)
    levels = dict.fromkeys(family.moved, level)
    for _ in range(_MOST_SWEEPS if len(family.moved) > 1 else 0):
        before = lowest
        for group in family.moved:
            levels[group], lowest = _cheapest(_of_group(cost, levels, group), tried)
        if math.isclose(lowest, before):
            break
    return levels


def _of_group(
    cost: Callable[[dict[str, float]], float], levels: dict[str, float], group: str
) -> Callable[[float], float]:
    return lambda level: cost({**levels, group: level})


def _cheapest(cost: Callable[[float], float], tried: Sequence[float]) -> tuple[float, float]:
    """The level of the lowest cost, and that; the middle one of several that follow each other.

    The middle is the farthest from where mistakes begin on either side.
    """
    found = [cost(level) for level in tried]
    lowest = min(found)
    first = last = found.index(lowest)
    while last + 1 < len(found) and math.isclose(found[last + 1], lowest, abs_tol=1e-15):
        last += 1
    return tried[(first + last) // 2], lowest
