"""Carries a policy to another model: what calibration doesn't choose anew is translated.

A value at which similarities are compared stands where the same share of benign images reaches it;
an amount that is added grows as the similarities to its concept spread more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.percentiles import Percentiles
from imagesafety.calibration.strictness import DIGITS
from imagesafety.policy import Adjustment, Group, Policy
from imagesafety.provenance import Provenance, provenance_warnings
from imagesafety.toml_lines import Place


def carried(
    old: Policy,
    provenance: Provenance | None,
    percentiles: Mapping[str, Percentiles],
    moved: tuple[str, ...],
) -> Policy:
    """The policy with adjustments, and groups other than `moved`, as they are by `percentiles`.

    Raises CalibrationError if nobody knows how rare the old values are.
    """
    if not old.adjustments and set(moved) == set(old.groups):
        return old
    known = _known(old, provenance)

    def translated(place: Place, concept: str) -> float:
        measured = known.measured.get(place)
        if measured is None or measured.share <= 0:
            raise CalibrationError(_first(old, "doesn't say how rare its values are"))
        return _written(percentiles[concept].value(measured.share))

    def group(name: str, group: Group) -> Group:
        def values(kind: str, concepts: Mapping[str, float]) -> dict[str, float]:
            return {c: translated(("groups", name, kind, c), c) for c in concepts}

        thresholds = values("thresholds", group.thresholds)
        return replace(group, thresholds=thresholds, critical=values("critical", group.critical))

    def added(concept: str, amount: float) -> float:
        if (spread := known.spreads.get(concept)) is None or spread.deviation <= 0:
            raise CalibrationError(_first(old, f"doesn't say how {concept!r} spreads"))
        return _written(amount * percentiles[concept].deviation / spread.deviation)

    def adjustments() -> Iterator[Adjustment]:
        for index, change in enumerate(old.adjustments):
            yield Adjustment(
                {c: translated(("adjustments", index, "when", c), c) for c in change.when},
                {concept: added(concept, amount) for concept, amount in change.add.items()},
            )

    groups = {n: g if n in moved else group(n, g) for n, g in old.groups.items()}
    return replace(old, groups=groups, adjustments=tuple(adjustments()))


def _known(old: Policy, provenance: Provenance | None) -> Provenance:
    if provenance is None:
        raise CalibrationError(_first(old, "was never calibrated"))
    if provenance_warnings(old, provenance):
        raise CalibrationError(_first(old, "was changed since it was calibrated"))
    return provenance


def _first(old: Policy, reason: str) -> str:
    return (
        f"the policy {reason}, so its adjustments can't be carried to another model: "
        f"calibrate it under its own model, {old.model}, first"
    )


def _written(value: float) -> float:
    return min(1.0, max(-1.0, round(value, DIGITS)))
