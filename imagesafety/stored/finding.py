"""What a policy and the overrides make of what was seen. Pure code: the place where a hit is one.

An unreadable file is never a hit, whatever a policy says of those: nobody has seen anything in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from imagesafety.policy import Policy
from imagesafety.stored.allowances import Allowances
from imagesafety.stored.seen import Seen
from imagesafety.verdict import Hit, Verdict, judge_image

OVERRIDE = "override"
"""The name of the rule by which denied files are hits."""
PARTIAL, NOT_JUDGED = "PARTIAL", "NOT_JUDGED"
_NOT_MEDIA = "UNSUPPORTED_TYPE"


class Kind(StrEnum):
    """What a file is, to a scan."""

    CLEAN = "clean"
    HIT = "hit"  # a rule that is enforced rejects it, or an administrator denies it
    FLAG = "flag"  # a rule that is enforced flags it
    SHADOW = "shadow"  # a rule in shadow mode would have held
    PROBLEM = "problem"  # it could not be looked at, or not as a whole
    NOT_MEDIA = "not media"


@dataclass(frozen=True)
class Finding:
    """What is said of a file, by which rule and for which view, or for which reason."""

    kind: Kind
    rule: str = ""
    view: int | None = None
    reason: str = ""
    message: str = ""


def find(policy: Policy, allowances: Allowances, seen: Seen) -> Finding:
    """The finding on one file."""
    denied = allowances.denies_bytes(seen.sha256)
    if denied is not None:
        return Finding(Kind.HIT, OVERRIDE) if denied else Finding(Kind.CLEAN)
    if seen.problem == _NOT_MEDIA:
        return Finding(Kind.NOT_MEDIA)
    if seen.problem:
        return Finding(Kind.PROBLEM, reason=seen.problem, message=seen.message)
    if allowances.denies_look(seen.hashes):
        return Finding(Kind.HIT, OVERRIDE)
    excepted = allowances.excepted_rules(seen.hashes, seen.total_frames)
    try:
        verdict = judge_image(policy, seen.views, excepted=excepted)
    except ValueError as error:
        return Finding(Kind.PROBLEM, reason=NOT_JUDGED, message=str(error))
    return _of_verdict(verdict, seen)


def _of_verdict(verdict: Verdict, seen: Seen) -> Finding:
    message = f"only a part could be looked at: {seen.partial}" if seen.partial else ""
    if verdict.hit is not None:
        return _by(Kind.HIT if verdict.rejects else Kind.FLAG, verdict.hit, message)
    if verdict.shadow is not None:
        return _by(Kind.SHADOW, verdict.shadow, message)
    if seen.partial:
        return Finding(Kind.PROBLEM, reason=PARTIAL, message=message)
    return Finding(Kind.CLEAN)


def _by(kind: Kind, hit: Hit, message: str) -> Finding:
    return Finding(kind, hit.rule.name, hit.view_index, message=message)
