"""Lists of hashes as files, written: the formats of hash_lists.py. Pure code."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator

from gateway.overrides.hash_lists import COLUMNS, FORMULA_STARTS, HashKind, ListFormat
from gateway.overrides.matching import Override, OverrideAction

FILE_TYPES = {
    ListFormat.CSV: ("text/csv", "csv"),
    ListFormat.LINES: ("text/plain", "txt"),
    ListFormat.HMA: ("application/x-ndjson", "jsonl"),
}
"""The media type of each format, and the end of a file's name."""


def export(
    entries: Iterable[Override],
    format: ListFormat,  # noqa: A002
    *,
    action: OverrideAction = OverrideAction.DENY,
    kind: HashKind | None = None,
) -> str:
    """The list as text.

    CSV has all entries, the other formats only those with `action`, which they can't tell. `lines`
    with a `kind` has bare hashes of it, else `sha256 …` and `pdq …`. `hma` has the entries with a
    PDQ hash: the banks of HMA know no SHA-256.
    """
    if format is ListFormat.CSV:
        return _csv(entries)
    chosen = [entry for entry in entries if entry.action is action]
    lines = _hma(chosen) if format is ListFormat.HMA else _lines(chosen, kind)
    return "".join(f"{line}\n" for line in lines)


def _csv(entries: Iterable[Override]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        cells = (_hex(entry.sha256), _hex(entry.pdq), entry.action.value, entry.rule, entry.note)
        writer.writerow([_harmless(cell or "") for cell in cells])
    return file.getvalue()


def _harmless(cell: str) -> str:
    """The cell so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if cell.startswith((*FORMULA_STARTS, "'")) else cell


def _lines(entries: Iterable[Override], kind: HashKind | None) -> Iterator[str]:
    for entry in entries:
        for name, value in ((HashKind.SHA256, entry.sha256), (HashKind.PDQ, entry.pdq)):
            if value is not None and kind in (None, name):
                yield value.hex() if kind else f"{name} {value.hex()}"


def _hma(entries: Iterable[Override]) -> Iterator[str]:
    for entry in entries:
        if entry.pdq is not None:
            yield json.dumps({"pdq": entry.pdq.hex()})


def _hex(value: bytes | None) -> str:
    return value.hex() if value is not None else ""
