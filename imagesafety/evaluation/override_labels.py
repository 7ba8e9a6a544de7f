"""Overrides as labels: what administrators have said of files that they looked at."""

from __future__ import annotations

from pathlib import Path

from imagesafety.evaluation.material import MaterialError
from imagesafety.override_list import OverrideListError, load_overrides


def read_override_labels(file: Path) -> dict[str, bool]:
    """Whether the files with these hashes are to be rejected. Entries without SHA-256 are left out.

    An allow for a single rule is one too: somebody looked at the file. Raises MaterialError.
    """
    try:
        entries = load_overrides(file)
    except OverrideListError as error:
        raise MaterialError(str(error)) from error
    return {entry.sha256.hex(): entry.denies for entry in entries if entry.sha256 is not None}
