"""Where a policy's thresholds come from, and whether that still holds.

`imagesafety calibrate` finds it out and `imagesafety policy check` looks at it. Pure code, without
numpy: the gateway's image has none. `imagesafety.provenance_file` has how it is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from imagesafety.policy import Mode, Partial, Policy
from imagesafety.toml_lines import Place


@dataclass(frozen=True)
class Material:
    """The images that were measured; `digest` identifies which, in whatever order."""

    files: int
    benign: int  # different ones that were scored
    rejected: int
    problems: int
    digest: str


@dataclass(frozen=True)
class Rate:
    """`count` of `images`, and with `confidence` the true share is from `low` to `high`."""

    count: int
    images: int
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Measured:
    """A value of the policy, and the share of benign images at or over it.

    `extrapolated`: no image was, the share is that of a fitted tail.
    """

    value: float
    share: float
    extrapolated: bool = False


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of benign images' highest similarities to a concept."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Provenance:
    """How thresholds came about, and of what they hold.

    `budget` is the share of benign images that may be rejected, None where a trade between both
    kinds of mistake was chosen; `goal` says what was asked for, in words. `measured` has the
    policy's values by their place in its file. `max_frames` is how many frames of an animation the
    service looked at, 0 for all; None if that was not noted.
    """

    calibrated: datetime
    imagesafety: str
    model: str
    weights_digest: str
    backend: str
    concepts_digest: str
    decisions_digest: str
    material: Material
    goal: str
    budget: float | None
    levels: Mapping[str, float]
    false_rejects: Rate
    false_accepts: Rate | None = None
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    measured: Mapping[Place, Measured] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    max_frames: int | None = None


def decisions_digest(policy: Policy) -> str:
    """Identifies what a policy decides: adjustments, groups, rules, and how closely it looks.

    Whether a rule is enforced or in shadow mode is no part of it: what was measured in shadow mode
    holds when it is enforced.
    """
    described: dict[str, object] = {
        "adjustments": [[dict(change.when), dict(change.add)] for change in policy.adjustments],
        "groups": {
            name: [group.at_least, dict(group.thresholds), dict(group.critical), group.twins]
            for name, group in policy.groups.items()
        },
        "rules": [
            [rule.name, sorted(rule.groups), rule.action, rule.mode is Mode.OFF]
            for rule in policy.rules
        ],
        "tiles": policy.tiles,
    }
    if policy.partial is Partial.REJECT:
        described["partial"] = policy.partial
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def places(policy: Policy) -> dict[Place, tuple[str, float]]:
    """The concept and the value at each place of a policy at which a similarity is compared."""
    found: dict[Place, tuple[str, float]] = {}
    for name, group in policy.groups.items():
        for key, values in (("thresholds", group.thresholds), ("critical", group.critical)):
            for concept, value in values.items():
                found["groups", name, key, concept] = (concept, value)
    for index, change in enumerate(policy.adjustments):
        for concept, value in change.when.items():
            found["adjustments", index, "when", concept] = (concept, value)
    return found


def provenance_warnings(policy: Policy, provenance: Provenance) -> list[str]:
    """What of the policy is no longer as it was when it was calibrated, one line each."""
    found = []
    if policy.model != provenance.model:
        found.append(f"it was calibrated for model {provenance.model}, not {policy.model}")
    elif policy.weights_digest not in (None, provenance.weights_digest):
        found.append(f"it was calibrated for other weights of {policy.model}")
    elif policy.weights_digest is None:
        found.append("it no longer names the weights that it was calibrated for")
    if policy.concepts_digest != provenance.concepts_digest:
        found.append("concepts or their prompts were changed since it was calibrated")
    if decisions_digest(policy) != provenance.decisions_digest:
        found.append(
            "thresholds, adjustments, rules or `partial` were changed since it was calibrated"
        )
    if found:
        found.append("what was measured no longer holds: run `imagesafety calibrate` again")
    return found


def service_warnings(provenance: Provenance, backend: str, max_frames: int) -> list[str]:
    """In what a service is not as the one that was calibrated with, one line each."""
    found = []
    if backend and backend not in provenance.backend.split(", "):
        found.append(
            f"it was calibrated with {provenance.backend}, and inference has {backend}: thresholds "
            "hold only nearly for another backend"
        )
    if provenance.max_frames not in (None, max_frames):
        before, now = (count or "all" for count in (provenance.max_frames, max_frames))
        found.append(
            f"it was calibrated with {before} frames of an animation, and inference looks at {now}"
        )
    return found
