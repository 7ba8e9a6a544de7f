"""Numbers of a policy for other scores: each value where the same share of images reaches it.

Calibration moves the thresholds of the rules that reject. Everything else that is compared with
similarities of a concept has to follow when that gets other scores. Pure code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from imagesafety.calibration.percentiles import Percentiles
from imagesafety.calibration.strictness import DIGITS
from imagesafety.policy import Adjustment, Policy


@dataclass(frozen=True)
class Scales:
    """How rare similarities to a concept are, before and after."""

    before: Percentiles
    after: Percentiles

    def value(self, value: float) -> float:
        """The similarity of today that is as rare as one of before."""
        return _written(self.after.value(self.before.share(value).share))

    def amount(self, amount: float) -> float:
        """What has to be added today for the same effect."""
        spread = self.before.deviation
        return _written(amount * self.after.deviation / spread) if spread > 0 else amount


def translated(policy: Policy, scales: Mapping[str, Scales]) -> Policy:
    """The policy with the numbers of these concepts on their new scales."""

    def values(table: Mapping[str, float]) -> dict[str, float]:
        return {
            name: scales[name].value(value) if name in scales else value
            for name, value in table.items()
        }

    def amounts(table: Mapping[str, float]) -> dict[str, float]:
        return {
            name: scales[name].amount(value) if name in scales else value
            for name, value in table.items()
        }

    groups = {
        name: replace(group, thresholds=values(group.thresholds), critical=values(group.critical))
        for name, group in policy.groups.items()
    }
    adjustments = tuple(
        Adjustment(when=values(change.when), add=amounts(change.add))
        for change in policy.adjustments
    )
    return replace(policy, groups=groups, adjustments=adjustments)


def _written(value: float) -> float:
    return min(1.0, max(-1.0, round(value, DIGITS)))
