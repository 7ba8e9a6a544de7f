"""What a scan went through, in numbers, and in words. Pure code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from imagesafety.stored.actions import PAST, Action, Outcome
from imagesafety.stored.finding import Finding, Kind


@dataclass
class Tally:
    """Counts of one round."""

    files: int = 0
    looked_at: int = 0  # read and scored in this round, and not in one before
    settled: int = 0  # of these, what no further try looks at again: so much nearer to the end
    removed: Counter[str] = field(default_factory=Counter)  # hits that are gone now, by rule
    kinds: Counter[Kind] = field(default_factory=Counter)
    rules: dict[Kind, Counter[str]] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # what another scan may see
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    recovered: int = 0

    def count(self, finding: Finding, *, may_pass: bool) -> None:
        """Counts a file."""
        self.files += 1
        self.kinds[finding.kind] += 1
        if finding.rule:
            self.rules.setdefault(finding.kind, Counter())[finding.rule] += 1
        if finding.kind is Kind.PROBLEM:
            self.problems[finding.reason] += 1
        if may_pass:
            self.failed[finding.reason or "PARTIAL"] += 1

    def count_outcome(self, outcome: Outcome, rule: str) -> None:
        """Counts what became of a hit of a rule."""
        self.outcomes[outcome] += 1
        if outcome in (Outcome.DONE, Outcome.GONE):
            self.removed[rule] += 1

    def carried(self) -> Tally:
        """What the next try of the same round begins with: what it will not come across."""
        gone = self.removed.total()
        ended = {outcome: self.outcomes[outcome] for outcome in (Outcome.DONE, Outcome.GONE)}
        return Tally(
            files=gone,
            looked_at=self.settled,
            settled=self.settled,
            removed=Counter(self.removed),
            kinds=Counter({Kind.HIT: gone}),
            rules={Kind.HIT: Counter(self.removed)} if gone else {},
            outcomes=Counter(ended),
            recovered=self.recovered,
        )

    @property
    def complete(self) -> bool:
        """Whether all that could be looked at was, and all was done that was to be done."""
        left = self.outcomes[Outcome.FAILED] + self.outcomes[Outcome.CHANGED]
        return not self.failed.total() and not left

    def note(self) -> str:
        """For beside a progress bar."""
        counts = ((self.kinds[Kind.HIT], "hits"), (self.kinds[Kind.PROBLEM], "problems"))
        return ", ".join(f"{count} {name}" for count, name in counts if count)


def summary(tally: Tally, place: str, action: Action) -> Iterator[str]:
    """What a person is told at the end."""
    before = tally.files - tally.looked_at
    yield f"{place}: {tally.files} files, {tally.looked_at} looked at now, {before} before"
    others = tally.kinds[Kind.NOT_MEDIA]
    yield f"  {tally.kinds[Kind.CLEAN]} clean" + (f", {others} not media" if others else "")
    yield f"  {tally.kinds[Kind.HIT]} hits{_by(tally.rules.get(Kind.HIT))}"
    for kind, name in ((Kind.FLAG, "flagged"), (Kind.SHADOW, "by rules in shadow mode")):
        if tally.kinds[kind]:
            yield f"  {tally.kinds[kind]} {name}{_by(tally.rules.get(kind))}"
    if tally.problems:
        yield f"  {tally.problems.total()} could not be looked at{_by(tally.problems)}"
    yield from _done(tally, action)
    if tally.failed:
        yield f"  {tally.failed.total()} only failed this time: run it again{_by(tally.failed)}"


def _done(tally: Tally, action: Action) -> Iterator[str]:
    done = tally.outcomes[Outcome.DONE] + tally.recovered
    if would := tally.outcomes[Outcome.WOULD]:
        yield f"  {would} would be {PAST[action]}: nothing was touched; --yes has it done"
    if done:
        yield f"  {done} {PAST[action]}"
    if changed := tally.outcomes[Outcome.CHANGED]:
        yield f"  {changed} left alone, which were changed since they were looked at: run it again"
    if failed := tally.outcomes[Outcome.FAILED]:
        yield f"  {failed} could not be {PAST[action]}: the report says why"


def _by(counts: Counter[str] | None) -> str:
    if not counts:
        return ""
    return ": " + ", ".join(f"{name} {count}" for name, count in counts.most_common())
