"""What a replay found: which decisions would flip, and what can't be compared. Plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What became of a file, or in shadow mode would have."""

    ACCEPT = "accept"
    FLAG = "flag"  # accepted, but recorded for review
    REJECT = "reject"

    @property
    def gravity(self) -> int:
        """0 for the mildest."""
        return list(Answer).index(self)


@dataclass(frozen=True, slots=True)
class Change:
    """From one answer to another; `in_shadow` where it is about what would have been."""

    before: Answer
    after: Answer
    in_shadow: bool = False

    @property
    def milder(self) -> bool:
        """Whether the new answer is the milder one."""
        return self.after.gravity < self.before.gravity

    def __str__(self) -> str:
        arrow = f"{self.before} → {self.after}"
        return f"{arrow} (in shadow)" if self.in_shadow else arrow


@dataclass(frozen=True, slots=True)
class Flip:
    """A decision that the other policy would have answered otherwise.

    `rule` is the rule behind the graver of the two answers; None if it was for a part that could
    not be looked at. `corrected` says that an override for these bytes has brought the same change
    already, `overridden` that one forbids it and stays in force.
    """

    id: str
    at: int
    client: str
    sha256: str | None
    change: Change
    rule: str | None
    corrected: bool = False
    overridden: bool = False


@dataclass(frozen=True)
class ReplayReport:
    """What became of a replay.

    `total` decisions were looked at, of which `not_comparable` counts those that can't be, by the
    reason. In at most `approximate` of the comparable ones the policies would have looked closer at
    different views, whose similarities nobody knows. `kept_by_override` of them stay as they are
    because an override decided, and does under any policy.
    """

    total: int
    not_comparable: Mapping[str, int]
    approximate: int
    kept_by_override: int
    flips: tuple[Flip, ...]

    @property
    def comparable(self) -> int:
        """How many decisions could be compared."""
        return self.total - sum(self.not_comparable.values())

    @property
    def corrected(self) -> int:
        """How many flips an override has brought already."""
        return sum(flip.corrected for flip in self.flips)

    @property
    def overridden(self) -> int:
        """How many flips go against an override, which stays in force."""
        return sum(flip.overridden for flip in self.flips)

    def by_change(self) -> dict[Change, list[Flip]]:
        """The flips of each kind, the most frequent kind first."""
        result: dict[Change, list[Flip]] = {}
        for flip in self.flips:
            result.setdefault(flip.change, []).append(flip)
        return dict(sorted(result.items(), key=lambda item: -len(item[1])))


def counted(flips: Iterable[Flip], key: Callable[[Flip], str]) -> dict[str, int]:
    """How many flips there are of each `key`, the most frequent first."""
    return dict(Counter(map(key, flips)).most_common())


def rule_of(flip: Flip) -> str:
    """The name of the rule behind a flip, or what is there instead."""
    return flip.rule if flip.rule is not None else "(no rule)"


def different_files(flips: Iterable[Flip]) -> int:
    """How many different files the flips are about, as far as their hashes are known."""
    return len({flip.sha256 for flip in flips if flip.sha256 is not None})


def report_content(report: ReplayReport) -> dict[str, object]:
    """The report as JSON has it, with every flip."""
    return {
        "decisions": report.total,
        "comparable": report.comparable,
        "not_comparable": dict(report.not_comparable),
        "approximate": report.approximate,
        "kept_by_override": report.kept_by_override,
        "corrected_by_override": report.corrected,
        "against_override": report.overridden,
        "changes": [
            {
                **_change_content(change),
                "decisions": len(flips),
                "files": different_files(flips),
                "by_rule": counted(flips, rule_of),
                "by_client": counted(flips, lambda flip: flip.client),
            }
            for change, flips in report.by_change().items()
        ],
        "flips": [
            {
                "id": flip.id,
                "at": flip.at,
                "client": flip.client,
                "sha256": flip.sha256,
                **_change_content(flip.change),
                "rule": flip.rule,
                "corrected_by_override": flip.corrected,
                "against_override": flip.overridden,
            }
            for flip in report.flips
        ],
    }


def _change_content(change: Change) -> dict[str, object]:
    return {"from": change.before, "to": change.after, "in_shadow": change.in_shadow}
