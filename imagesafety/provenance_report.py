"""Provenance in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from imagesafety.policy import CRITICAL_COUNT, Group, Mode, Policy
from imagesafety.provenance import Provenance, Rate


def share_in_words(share: float, digits: int = 3) -> str:
    """A share as people read it."""
    if share >= 0.01 or share == 0:
        return f"{share * 100:.{digits}g} %"
    if share >= 1e-5:
        return f"{share * 1e4:.{digits}g} in {grouped(10_000)}"
    return f"{share * 1e6:.{digits}g} in a million" if share >= 1e-7 else f"{share:.0e}"


def grouped(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def described(provenance: Provenance) -> Iterator[str]:
    """When, for what, how many images, and which rates can be expected; a sentence each."""
    yield (
        f"Calibrated on {provenance.calibrated.date()} with imagesafety {provenance.imagesafety} "
        f"for {provenance.model}; asked for: {provenance.goal}."
    )
    rejects = provenance.false_rejects
    yield (
        f"Of the {grouped(rejects.images)} benign images that it was counted on it rejects "
        f"{grouped(rejects.count)}, and {_at_most(rejects)} of benign images like these."
    )
    if (accepts := provenance.false_accepts) is not None:
        yield (
            f"Of {grouped(accepts.images)} images to be rejected it misses "
            f"{grouped(accepts.count)}, and {_at_most(accepts)} of images like these."
        )


def _at_most(rate: Rate) -> str:
    confidence = f"with {rate.confidence * 100:.3g} % confidence"
    if rate.low == 0:
        return f"{confidence} at most {share_in_words(rate.high)}"
    return f"{confidence} {share_in_words(rate.low)} to {share_in_words(rate.high)}"


def was_never_measured(policy: Policy) -> bool:
    """Whether a policy without provenance rejects by thresholds of which nobody knows the rate."""
    return any(rule.rejects and rule.mode is Mode.ENFORCE for rule in policy.rules)


def placeholders(policy: Policy) -> list[str]:
    """The rules that hold for no image, because thresholds of 1 stand where none was measured."""
    never = {name for name, group in policy.groups.items() if not _can_hold(group)}
    return [rule.name for rule in policy.rules if never.intersection(rule.groups)]


def _can_hold(group: Group) -> bool:
    reachable = 0
    for concept, threshold in group.thresholds.items():
        if group.critical.get(concept, 1.0) < 1.0:
            reachable += CRITICAL_COUNT
        elif threshold < 1.0:
            reachable += 1
    return reachable >= group.at_least
