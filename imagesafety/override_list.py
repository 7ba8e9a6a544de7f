"""What administrators have said of files, from the CSV that the admin pages export.

Columns sha256, pdq, action, rule and note, in any order; one of the first two and the action are
needed. Everything is read or nothing: a line that is left out could be an allowed file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("sha256", "pdq", "action", "rule", "note")
_FORMULA_STARTS = "=+-@＝＋－＠"  # before which an export writes a ', for spreadsheets
_DENIES = {"allow": False, "deny": True}


class OverrideListError(ValueError):
    """A list that can't be used; the message is one line with file, line and why."""


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """A file that is denied, or allowed: by the SHA-256 of its bytes, by its look (PDQ), or both.

    An allow by look is for the hits of one rule, `rule`, and of no other.
    """

    denies: bool
    sha256: bytes | None
    pdq: bytes | None
    rule: str = ""
    note: str = ""


def load_overrides(path: Path) -> tuple[OverrideEntry, ...]:
    """Reads a list. Raises OverrideListError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OverrideListError(f"{path}: cannot be read: {error}") from error
    return parse_overrides(text, str(path))


def parse_overrides(text: str, source: str = "overrides") -> tuple[OverrideEntry, ...]:
    """Reads the text of a list; `source` names it in errors. Raises OverrideListError."""
    entries: dict[OverrideEntry, None] = {}
    by_bytes: dict[bytes, bool] = {}
    for number, cells in _rows(source, text.split("\n")):
        where = f"{source}, line {number}"
        entry = _entry(cells, where)
        if entry.sha256 is not None:
            said = by_bytes.setdefault(entry.sha256, entry.denies)
            if said is not entry.denies:
                raise OverrideListError(f"{where}: the same file is allowed and denied")
        entries[entry] = None
    return tuple(entries)


def _entry(cells: Mapping[str, str], where: str) -> OverrideEntry:
    denies = _DENIES.get(cells.get("action", "").lower())
    if denies is None:
        said = cells.get("action") or "missing"
        raise OverrideListError(f"{where}: the action is {said}, not allow or deny")
    sha256 = _hash(cells.get("sha256", ""), "SHA-256", where)
    pdq = _hash(cells.get("pdq", ""), "PDQ hash", where)
    if sha256 is None and pdq is None:
        raise OverrideListError(f"{where}: there is neither a SHA-256 nor a PDQ hash")
    rule = cells.get("rule", "")
    if sha256 is None and not denies and not rule:
        raise OverrideListError(f"{where}: an allow by PDQ needs the rule that it is for")
    return OverrideEntry(denies, sha256, pdq, rule, cells.get("note", ""))


def _hash(text: str, name: str, where: str) -> bytes | None:
    if text and not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise OverrideListError(f"{where}: a {name} has 64 hexadecimal digits")
    return bytes.fromhex(text) if text else None


def _rows(source: str, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The cells of each line that is not empty, by column, with the line's number."""
    columns: list[str] = []
    delimiter = ","
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if not columns and ";" in line and "," not in line:
            delimiter = ";"  # as spreadsheets write where the comma is for decimals
        try:
            # One at a time: a quote that is never closed must not swallow the rest of the file.
            [row] = csv.reader([line], delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise OverrideListError(f"{source}, line {number}: not CSV: {error}") from None
        cells = [cell.strip() for cell in row]
        if not columns:
            columns = _columns(cells, f"{source}, line {number}")
        elif len(cells) > len(columns):
            said = f"{len(cells)} cells, but {len(columns)} columns"
            raise OverrideListError(f"{source}, line {number}: {said}")
        elif any(cells):
            yield number, dict(zip(columns, map(_without_mark, cells), strict=False))
    if not columns:
        raise OverrideListError(f"{source}: is empty; at least a line with the columns is needed")


def _columns(cells: Sequence[str], where: str) -> list[str]:
    columns = [cell.lower() for cell in cells]
    known = not set(columns) - set(COLUMNS) and len(set(columns)) == len(columns)
    if not known or "action" not in columns or not {"sha256", "pdq"} & set(columns):
        wanted = f"the first line has to name columns out of {', '.join(COLUMNS)}, each once"
        raise OverrideListError(f"{where}: {wanted}; action and a hash are needed")
    return columns


def _without_mark(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in {*_FORMULA_STARTS, "'"} else cell
