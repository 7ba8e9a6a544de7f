"""What the command line says to a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """`seconds`: how long the load goes on, roughly; None for what the row likes best."""

    seconds: float | None = None

    def of(self, default: float) -> float:
        """The seconds of a row that likes `default` best."""
        return default if self.seconds is None else self.seconds
