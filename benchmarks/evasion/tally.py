"""Counts what was found, and prints it: as tables for people, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

from benchmarks.evasion.scoring import Finding
from benchmarks.evasion.transforms import Transform
from imagesafety.evaluation.proportion import Proportion


class Tally:
    """Counts findings."""

    def __init__(self, transforms: Sequence[Transform], details: Sequence[str]) -> None:
        self._transforms, self._details = transforms, details
        self._pictures: Counter[tuple[str, bool, str]] = Counter()
        self._rejected: Counter[tuple[str, bool, str]] = Counter()

    def add(self, finding: Finding) -> None:
        """One more."""
        key = finding.transform.name, finding.rejectable, finding.detail
        self._pictures[key] += 1
        self._rejected[key] += finding.rejected

    def rate(self, transform: Transform, detail: str, *, rejectable: bool) -> Proportion:
        """Of one way to hide, looked at in one way."""
        key = transform.name, rejectable, detail
        return Proportion.of(self._rejected[key], self._pictures[key])

    def mean_detection(self, detail: str) -> float:
        """The mean over all ways to hide that count: the number to raise."""
        counted = [one for one in self._transforms if not one.beyond]
        return fmean(
            self.rate(one, detail, rejectable=True).share or 0.0
            for one in counted or self._transforms
        )

    def table(self, *, rejectable: bool) -> Iterator[str]:
        """A row for each way to hide, in Markdown."""
        yield f"| {'found' if rejectable else 'falsely rejected'} | {' | '.join(self._details)} |"
        yield "| --- |" + " --- |" * len(self._details)
        for one in self._transforms:
            name = f"{one.name} ({one.beyond})" if one.beyond and rejectable else one.name
            rates = [_cell(self.rate(one, way, rejectable=rejectable)) for way in self._details]
            yield f"| {name} | {' | '.join(rates)} |"
        if rejectable:
            means = (f"{self.mean_detection(way) * 100:.1f} %" for way in self._details)
            yield f"| **mean of the rows without a remark** | {' | '.join(means)} |"

    def content(self) -> dict[str, object]:
        """As JSON."""
        return {
            "mean_detection": {way: self.mean_detection(way) for way in self._details},
            "rows": [
                {
                    "transform": one.name,
                    "beyond": one.beyond,
                    "detection": self._rates(one, rejectable=True),
                    "false_rejects": self._rates(one, rejectable=False),
                }
                for one in self._transforms
            ],
        }

    def _rates(self, one: Transform, *, rejectable: bool) -> dict[str, dict[str, float]]:
        return {way: _content(self.rate(one, way, rejectable=rejectable)) for way in self._details}


def _cell(rate: Proportion) -> str:
    shares = (rate.share or 0.0, rate.interval.low, rate.interval.high)
    share, low, high = (f"{100 * value:.0f}" for value in shares)
    return f"{share} % ({low} to {high})"


def _content(rate: Proportion) -> dict[str, float]:
    return {
        "rejected": rate.count,
        "pictures": rate.total,
        "low": round(rate.interval.low, 4),
        "high": round(rate.interval.high, 4),
    }
