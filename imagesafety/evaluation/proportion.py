"""A share of a sample, with what it says of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from imagesafety.evaluation.intervals import Interval, clopper_pearson


@dataclass(frozen=True)
class Proportion:
    """`count` of `total`, and the interval by Clopper and Pearson."""

    count: int
    total: int
    interval: Interval

    @classmethod
    def of(cls, count: int, total: int, confidence: float = 0.95) -> Self:
        """The share `count` of `total`."""
        return cls(count, total, clopper_pearson(count, total, confidence))

    @property
    def share(self) -> float | None:
        """From 0 to 1; None of nothing."""
        return self.count / self.total if self.total else None
