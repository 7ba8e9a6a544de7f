"""Lists of hashes as files, read. Pure code.

Formats:

- `lines`: one hash a line, 64 hexadecimal digits; what follows a # is a comment. SHA-256 and PDQ
  look the same, so the caller says which it is, or each line does: `sha256:…`, `pdq:…`, or with a
  space as Meta's python-threatexchange has it (its `local_file` exchange, `threatexchange hash`,
  `threatexchange dataset --print-signals`).
- `csv`: a header with some of the columns sha256, pdq, action, rule and note, in any order, and one
  entry a line.
- `hma`: what Meta's hasher-matcher-actioner takes and gives: the JSON object from signal types to
  signals that `POST /c/bank/{bank}/signal` takes, as `{"pdq": "…"}`, one a line; or such an object
  as the member `signals` of a bank's content, as HMA answers; or one JSON list of these. See
  https://github.com/facebook/ThreatExchange/tree/main/hasher-matcher-actioner.

A line that is wrong is reported with its number, and the others are read all the same.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gateway.overrides.entries import NewOverride, OverrideError, hash_from_hex
from gateway.overrides.matching import OverrideAction

MOST_BYTES = 32 * 1024 * 1024
MOST_LINES = 500_000
MOST_LINE_BYTES = 16 * 1024

COLUMNS = ("sha256", "pdq", "action", "rule", "note")
FORMULA_STARTS = "=+-@＝＋－＠"
"""A spreadsheet takes what starts so for a formula; an export writes a ' before it."""

_LINE = re.compile(r"(?:(sha256|pdq)(?:\s*:\s*|\s+))?(\S+)", re.IGNORECASE)


class ListFormat(StrEnum):
    """The format of a list."""

    LINES = "lines"
    CSV = "csv"
    HMA = "hma"


class HashKind(StrEnum):
    """What a hash is of: the bytes, or the look."""

    SHA256 = "sha256"
    PDQ = "pdq"


class HashListError(Exception):
    """A list that can't be read at all; the message says why."""


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong in a line, counted from 1; of a JSON list, in the item."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ParsedList:
    """What is in a list, and which lines can't be read."""

    entries: tuple[NewOverride, ...]
    errors: tuple[LineError, ...]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a list does not say it. `rule` is for entries that allow by PDQ."""

    action: OverrideAction | None = None
    kind: HashKind | None = None
    rule: str | None = None
    note: str = ""


_Read = Callable[[str], NewOverride | None]
_Items = Iterable[tuple[int, str | LineError]]


def parse(data: bytes | str, format: ListFormat, defaults: Defaults) -> ParsedList:  # noqa: A002
    """Reads a list. Raises HashListError for one that can't be read at all."""
    lines = _lines(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    items: _Items = lines
    if format is ListFormat.CSV:
        read, items = _csv_reader(lines, defaults), lines[1:]
    elif format is ListFormat.HMA:
        read, items = _hma_reader(defaults), _json_items(lines)
    else:
        read = _line_reader(defaults)
    entries: list[NewOverride] = []
    errors: list[LineError] = []
    for number, item in items:
        if isinstance(item, LineError):
            errors.append(item)
            continue
        try:
            entry = read(item)
            if entry is not None:
                entries.append(entry.checked())
        except OverrideError as error:
            errors.append(LineError(number, str(error)))
    return ParsedList(tuple(entries), tuple(errors))


def _lines(data: bytes) -> list[tuple[int, str | LineError]]:
    """The lines that are not blank, with their numbers."""
    if len(data) > MOST_BYTES:
        raise HashListError(f"the list has over {MOST_BYTES // 1024 // 1024} MiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:64]:
        raise HashListError("the list is not in UTF-8")
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    if len(lines) > MOST_LINES:
        raise HashListError(f"the list has over {MOST_LINES} lines")
    return [(number, _text(number, line)) for number, line in enumerate(lines, 1) if line.strip()]


def _text(number: int, line: bytes) -> str | LineError:
    # A JSON list may be one line.
    if len(line) > MOST_LINE_BYTES and not line.startswith(b"["):
        return LineError(number, f"the line has over {MOST_LINE_BYTES} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return LineError(number, f"not UTF-8 at byte {error.start + 1} of the line")


def _line_reader(defaults: Defaults) -> _Read:
    def read(line: str) -> NewOverride | None:
        line = line.partition("#")[0].strip()
        if not line:
            return None
        match = _LINE.fullmatch(line)
        if match is None:
            raise OverrideError("more than one hash in the line")
        kind = match[1].lower() if match[1] else defaults.kind
        if kind is None:
            raise OverrideError("say whether it is sha256 or pdq: they look the same")
        return _entry({kind: match[2]}, defaults)

    return read


def _csv_reader(lines: list[tuple[int, str | LineError]], defaults: Defaults) -> _Read:
    if not lines or isinstance(lines[0][1], LineError):
        raise HashListError("the list has no header")
    header = lines[0][1]
    # Where the comma is for decimals, spreadsheets write semicolons.
    delimiter = ";" if ";" in header and "," not in header else ","
    try:
        columns = [cell.lower() for cell in _cells(header, delimiter)]
    except OverrideError as error:
        raise HashListError(f"the header is {error}") from None
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or len(set(columns)) < len(columns) or not {"sha256", "pdq"} & set(columns):
        raise HashListError(
            f"the first line has to name columns out of {', '.join(COLUMNS)}, each once, and one "
            "of the first two is needed"
        )

    def read(line: str) -> NewOverride | None:
        cells = [_without_mark(cell) for cell in _cells(line, delimiter)]
        if not any(cells):
            return None
        if len(cells) > len(columns):
            raise OverrideError(f"{len(cells)} cells, but the header has {len(columns)} columns")
        return _entry(dict(zip(columns, cells, strict=False)), defaults)

    return read


def _cells(line: str, delimiter: str) -> list[str]:
    # One line at a time: a quote that is never closed must not swallow the rest of the file.
    try:
        rows = list(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise OverrideError(f"not CSV: {error}") from None
    return [cell.strip() for cell in rows[0]] if rows else []


def _without_mark(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in {*FORMULA_STARTS, "'"} else cell


def _hma_reader(defaults: Defaults) -> _Read:
    def read(item: str) -> NewOverride | None:
        try:
            value = json.loads(item)
        except (ValueError, RecursionError):
            raise OverrideError("not a JSON object") from None
        signals = value.get("signals", value) if isinstance(value, dict) else None
        if not isinstance(signals, dict):
            raise OverrideError("not a JSON object of signals")
        known = {kind.value: signals[kind] for kind in HashKind if kind in signals}
        if not known or not all(isinstance(signal, str) for signal in known.values()):
            raise OverrideError(f"no signal of the types {' or '.join(HashKind)}")
        return _entry(known, defaults)

    return read


def _json_items(lines: list[tuple[int, str | LineError]]) -> Iterator[tuple[int, str | LineError]]:
    """The lines; or of a JSON list the items, each as JSON again."""
    text = "\n".join(line for _, line in lines if isinstance(line, str))
    if not text.lstrip().startswith("["):
        yield from lines
        return
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HashListError(f"not a JSON list: {error}") from None
    yield from (line for line in lines if isinstance(line[1], LineError))
    for number, item in enumerate(items, 1):
        yield number, json.dumps(item)


def _entry(fields: dict[str, str], defaults: Defaults) -> NewOverride:
    """An entry of the fields of a line, which are named as in COLUMNS. Raises OverrideError."""
    action = _action(fields.get("action", ""), defaults)
    sha256, pdq = fields.get("sha256", ""), fields.get("pdq", "")
    rule = fields.get("rule") or None
    if rule is None and pdq and action is OverrideAction.ALLOW:
        rule = defaults.rule
    return NewOverride(
        action=action,
        sha256=hash_from_hex("SHA-256", sha256) if sha256 else None,
        pdq=hash_from_hex("PDQ hash", pdq) if pdq else None,
        rule=rule,
        note=fields.get("note") or defaults.note,
    )


def _action(text: str, defaults: Defaults) -> OverrideAction:
    if not text and defaults.action is not None:
        return defaults.action
    try:
        return OverrideAction(text.lower())
    except ValueError:
        wanted = " or ".join(OverrideAction)
        raise OverrideError(f"the action is {text or 'missing'}, not {wanted}") from None
