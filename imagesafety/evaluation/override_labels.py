"""Labels that an administrator gave by overrides: the CSV that the gateway's admin page exports."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from imagesafety.evaluation.material import MaterialError, shown

_ACTIONS = {"allow": False, "deny": True}


def read_override_labels(file: Path) -> dict[str, bool]:
    """Whether the files with these hashes are to be rejected. Entries without SHA-256 are left out.

    An allow for a single rule is one too: somebody looked at the file. Raises MaterialError.
    """
    found: dict[str, bool] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened)
            columns = [cell.strip().lower() for cell in next(reader, [])]
            if not {"sha256", "action"} <= set(columns):
                raise MaterialError(f"{shown(file)}: no columns are called sha256 and action")
            hashes, actions = columns.index("sha256"), columns.index("action")
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) <= max(hashes, actions):
                    raise MaterialError(f"{shown(file)}, line {reader.line_num}: too few cells")
                # The export puts a ' before what a spreadsheet would take for a formula.
                sha256 = cells[hashes].strip().lstrip("'").lower()
                action = cells[actions].strip().lower()
                if not sha256:
                    continue
                if action not in _ACTIONS or not re.fullmatch("[0-9a-f]{64}", sha256):
                    raise MaterialError(
                        f"{shown(file)}, line {reader.line_num}: not a SHA-256 with allow or deny"
                    )
                found[sha256] = _ACTIONS[action]
    except OSError as error:
        raise MaterialError(f"{shown(file)}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise MaterialError(f"{shown(file)}: no CSV that can be read: {error}") from None
    return found
