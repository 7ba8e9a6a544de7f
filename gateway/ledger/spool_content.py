"""What is in a spool file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.ledger.policy_text import PolicyText
from gateway.ledger.spool_lines import DamagedLineError, parse_line


@dataclass(frozen=True)
class SpoolContent:
    """What is in a file. `damaged` is the number of lines that are not as they were written.

    A last line that ends in the middle is not counted: nobody was told that it is stored.
    """

    rows: tuple[dict[str, Any], ...]
    policies: tuple[PolicyText, ...]
    damaged: int


def read_spool(path: Path) -> SpoolContent:
    """Reads a file. Raises OSError."""
    rows, policies, damaged = [], [], 0
    with path.open("rb") as file:
        for line in file:
            try:
                content = parse_line(line)
            except DamagedLineError:
                damaged += line.endswith(b"\n")
                continue
            if isinstance(content, PolicyText):
                policies.append(content)
            else:
                rows.append(content)
    return SpoolContent(tuple(rows), tuple(policies), damaged)
