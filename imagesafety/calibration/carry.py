"""Carries a policy to another model: what calibration doesn't choose anew is translated.

A value at which similarities are compared stands where the same share of benign images reaches it;
an amount that is added grows as the similarities to its concept spread more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.percentiles import Percentiles
from imagesafety.calibration.strictness import (
    DIGITS,
    EQUAL,
    LOOSEST,
    Balance,
    balance_of_shares,
)
from imagesafety.policy import Adjustment, Group, Policy
from imagesafety.provenance import Provenance, provenance_warnings
from imagesafety.toml_lines import Place


@dataclass(frozen=True)
class Origin:
    """A policy as it is for another model, and where its thresholds come from."""

    policy: Policy
    provenance: Provenance | None


def carried(
    policy: Policy, origin: Origin, percentiles: Mapping[str, Percentiles], moved: tuple[str, ...]
) -> Policy:
    """The policy with adjustments, and groups other than `moved`, as they are by `percentiles`.

    Raises CalibrationError if nobody knows how rare the old values are.
    """
    if not policy.adjustments and set(moved) == set(policy.groups):
        return policy
    translation = _Translation(origin, _known(origin), percentiles)
    groups = {
        name: group if name in moved else translation.group(group)
        for name, group in policy.groups.items()
    }
    changes = enumerate(policy.adjustments)
    adjustments = tuple(translation.adjustment(index, change) for index, change in changes)
    return replace(policy, groups=groups, adjustments=adjustments)


def carried_balance(origin: Origin, moved: tuple[str, ...]) -> Balance:
    """How rare the thresholds of these groups were against each other under the old model.

    Equally, if nobody knows.
    """
    known = origin.provenance
    if known is None or provenance_warnings(origin.policy, known):
        return EQUAL
    shares = {
        (name, concept): known.measured.get(("groups", name, "thresholds", concept))
        for name in moved
        for concept in origin.policy.groups[name].thresholds
    }
    found = {place: measured.share for place, measured in shares.items() if measured is not None}
    if len(found) < len(shares) or not all(0 < share <= LOOSEST for share in found.values()):
        return EQUAL
    return balance_of_shares(found)


@dataclass(frozen=True)
class _Translation:
    origin: Origin
    known: Provenance
    percentiles: Mapping[str, Percentiles]

    def group(self, group: Group) -> Group:
        return replace(
            group,
            thresholds=self._values(("groups", group.name, "thresholds"), group.thresholds),
            critical=self._values(("groups", group.name, "critical"), group.critical),
        )

    def adjustment(self, index: int, change: Adjustment) -> Adjustment:
        return Adjustment(
            when=self._values(("adjustments", index, "when"), change.when),
            add={concept: self._amount(concept, amount) for concept, amount in change.add.items()},
        )

    def _values(self, place: Place, values: Mapping[str, float]) -> dict[str, float]:
        return {concept: self._value((*place, concept), concept) for concept in values}

    def _value(self, place: Place, concept: str) -> float:
        measured = self.known.measured.get(place)
        if measured is None or not 0 < measured.share <= 1:
            raise _not_carried(self.origin, "doesn't say how rare its values are")
        return _written(self.percentiles[concept].value(measured.share))

    def _amount(self, concept: str, amount: float) -> float:
        spread = self.known.spreads.get(concept)
        if spread is None or spread.deviation <= 0:
            raise _not_carried(self.origin, f"doesn't say how similarities to {concept!r} spread")
        return _written(amount * self.percentiles[concept].deviation / spread.deviation)


def _known(origin: Origin) -> Provenance:
    if origin.provenance is None:
        raise _not_carried(origin, "was never calibrated")
    if provenance_warnings(origin.policy, origin.provenance):
        raise _not_carried(origin, "was changed since it was calibrated")
    return origin.provenance


def _not_carried(origin: Origin, reason: str) -> CalibrationError:
    return CalibrationError(
        f"the policy {reason}, so its adjustments and flags can't be carried to another model: "
        f"calibrate it under its own model, {origin.policy.model}, first"
    )


def _written(value: float) -> float:
    return min(1.0, max(-1.0, round(value, DIGITS)))
