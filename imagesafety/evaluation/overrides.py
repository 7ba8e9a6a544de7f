"""Overrides as labels: what administrators have said of files, from the CSV of the admin pages."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

COLUMNS = ("sha256", "pdq", "action", "rule", "note")
_FORMULA_STARTS = "=+-@＝＋－＠"  # before which an export writes a ', for spreadsheets
_ACTIONS = {"allow": False, "deny": True}


class OverridesError(ValueError):
    """A file of overrides that can't be used; the message is one line with file, line and why."""


def read_overrides(path: Path) -> Mapping[bytes, bool]:
    """For the SHA-256 of each file with an override, whether it is to be rejected.

    What is known by its look only says nothing of a file's bytes, and is left out. Raises
    OverridesError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OverridesError(f"{path}: cannot be read: {error}") from error
    found: dict[bytes, bool] = {}
    for number, cells in _rows(path, text.split("\n")):
        where = f"{path}, line {number}"
        reject = _ACTIONS.get(cells.get("action", "").lower())
        if reject is None:
            said = cells.get("action") or "missing"
            raise OverridesError(f"{where}: the action is {said}, not allow or deny")
        digest = cells.get("sha256", "").lower()
        if not digest and cells.get("pdq"):
            continue
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise OverridesError(f"{where}: a SHA-256 has 64 hexadecimal digits")
        if found.setdefault(bytes.fromhex(digest), reject) is not reject:
            raise OverridesError(f"{where}: the same file is allowed and denied")
    return found


def _rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The cells of each line that is not empty, by column, with the line's number."""
    columns: list[str] | None = None
    delimiter = ","
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if columns is None and ";" in line and "," not in line:
            delimiter = ";"  # as spreadsheets write where the comma is for decimals
        try:
            # One at a time: a quote that is never closed must not swallow the rest of the file.
            [row] = csv.reader([line], delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise OverridesError(f"{path}, line {number}: not CSV: {error}") from None
        cells = [cell.strip() for cell in row]
        if columns is None:
            columns = [cell.lower() for cell in cells]
            if set(columns) - set(COLUMNS) or not {"sha256", "action"} <= set(columns):
                wanted = "the columns sha256 and action are needed, pdq, rule and note known too"
                raise OverridesError(f"{path}, line {number}: {wanted}")
        elif any(cells):
            yield number, dict(zip(columns, map(_without_mark, cells), strict=False))
    if columns is None:
        raise OverridesError(f"{path}: is empty; at least a line with the columns is needed")


def _without_mark(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in {*_FORMULA_STARTS, "'"} else cell
