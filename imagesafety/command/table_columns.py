"""What is said of a table's columns."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path


def say_unused_columns(source: Path, concepts: Collection[str]) -> None:
    """Names the columns that no label is read from: a concept may be spelt otherwise there.

    Raises MaterialError.
    """
    from imagesafety.evaluation.material import shown, unused_columns

    if unused := unused_columns(source, concepts):
        names = ", ".join(map(shown, unused))
        print(f"imagesafety: columns that are no labels: {names}", file=sys.stderr)
