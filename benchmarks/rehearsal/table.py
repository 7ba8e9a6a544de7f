"""The table that a rehearsal prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = ("row", "what", "required", "measured", "")


@dataclass(frozen=True)
class Line:
    """One requirement of a row, or with `met` None a figure that is only told."""

    row: str
    what: str
    required: str
    measured: str
    met: bool | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of the columns."""
        mark = "" if self.met is None else "pass" if self.met else "MISS"
        return (self.row, self.what, self.required, self.measured, mark)


def at_most(row: str, what: str, value: float, limit: float, unit: str = "") -> Line:
    """A figure that may not be over its limit."""
    return Line(row, what, f"≤ {limit:.3g}{unit}", f"{value:.3g}{unit}", value <= limit)


def at_least(row: str, what: str, value: float, limit: float, unit: str = "") -> Line:
    """A figure that may not be under its limit."""
    return Line(row, what, f"≥ {limit:.3g}{unit}", f"{value:.3g}{unit}", value >= limit)


def told(row: str, what: str, measured: str) -> Line:
    """A figure that nothing is required of."""
    return Line(row, what, "", measured, None)


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, aligned for a terminal."""
    rows = [_HEAD, *(line.cells for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "| " + " | ".join("-" * max(width, 3) for width in widths) + " |"
    return "\n".join([shown[0], rule, *shown[1:]])
