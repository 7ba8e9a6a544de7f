"""Tables of paths and labels: CSV or Parquet, read as a stream.

Column `path` names an image, relative to the table's own folder; `label` is accept (or benign) or
reject, or empty where nobody said; and a column of a concept's name is true or false (also 1 or 0,
yes or no), or empty. Other columns are nobody's business here, nor are those without a name, which
spreadsheets and data frames leave.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagesafety.evaluation.material import (
    ACCEPT,
    BENIGN,
    REJECT,
    LabelledFile,
    Labels,
    MaterialError,
    shown,
)

if TYPE_CHECKING:
    import pyarrow

PATH, LABEL = "path", "label"
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
_ROWS = 4096  # of a Parquet file at once
_Row = tuple[int, Mapping[str, object]]


def read_table(table: Path, concepts: Collection[str]) -> Iterator[LabelledFile]:
    """The files that a table names. Raises MaterialError with the line."""
    wanted = [name for name in concepts if name not in (PATH, LABEL)]
    rows = _csv_rows(table) if _is_csv(table) else _parquet_rows(table, (PATH, LABEL, *wanted))
    for number, row in rows:
        try:
            path = _path(row.get(PATH))
            labels = Labels(
                _label(row.get(LABEL)),
                {
                    name: value
                    for name in wanted
                    if (value := _truth(name, row.get(name))) is not None
                },
            )
        except ValueError as error:
            word = "line" if _is_csv(table) else "row"
            raise MaterialError(f"{shown(table)}, {word} {number}: {error}") from None
        yield LabelledFile(table.parent / path, labels)


def unused_columns(table: Path, concepts: Collection[str]) -> tuple[str, ...]:
    """The columns that nothing is read from. Raises MaterialError."""
    columns = _csv_columns(table) if _is_csv(table) else _parquet_columns(table)
    return tuple(name for name in columns if name and name not in (PATH, LABEL, *concepts))


def _is_csv(table: Path) -> bool:
    return table.suffix.lower() == ".csv"


def _path(value: object) -> str:
    path = os.fsdecode(value) if isinstance(value, bytes) else value
    if not isinstance(path, str) or not path:
        raise ValueError("there is no path")
    if "\0" in path:
        raise ValueError("a path can't have a NUL in it")
    return path


def _label(value: object) -> bool | None:
    text = _text(value)
    if text in ("", ACCEPT, BENIGN, REJECT):
        return text == REJECT if text else None
    raise ValueError(f"label must be accept or reject, not {_quoted(value)}")


def _truth(name: str, value: object) -> bool | None:
    text = _text(value)
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text:
        raise ValueError(f"{shown(name)} must be true or false, not {_quoted(value)}")
    return None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None or value != value else str(value).strip().lower()


def _quoted(value: object) -> str:
    return f"'{shown(str(value)[:40])}'"


def _checked(table: Path, columns: Sequence[str]) -> None:
    if PATH not in columns:
        raise MaterialError(f"{shown(table)}: no column is called `path`")
    for name in columns:
        if name and columns.count(name) > 1:
            raise MaterialError(f"{shown(table)}: two columns are called {_quoted(name)}")


def _csv_columns(table: Path) -> tuple[str, ...]:
    _, header = next(_csv_lines(table), (1, []))
    columns = tuple(name.strip() for name in header)
    _checked(table, columns)
    return columns


def _csv_rows(table: Path) -> Iterator[_Row]:
    columns = _csv_columns(table)
    for number, cells in itertools.islice(_csv_lines(table), 1, None):
        if not any(cells):
            continue
        if len(cells) > len(columns):
            raise MaterialError(
                f"{shown(table)}, line {number}: {len(cells)} cells, but there are "
                f"{len(columns)} columns"
            )
        row = dict(zip(columns, cells, strict=False))
        if "\n" in row[PATH]:
            raise MaterialError(
                f"{shown(table)}, line {number}: the path has a line break in it, as after a quote "
                "that is not closed"
            )
        yield number, row


def _csv_lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the number of its first line. Raises MaterialError."""
    number = 1
    try:
        # File names need not be UTF-8, so neither need the table be.
        with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            # Strict: a quote that is never closed would hide the rows below it without a word.
            reader = csv.reader(file, strict=True)
            for cells in reader:
                yield number, cells
                number = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        raise MaterialError(f"{shown(table)}, line {number}: {reason}") from None
    except OSError as error:
        raise MaterialError(f"{shown(table)}: cannot be read: {error.strerror}") from error


def _parquet_columns(table: Path) -> tuple[str, ...]:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = tuple(pyarrow.parquet.read_schema(table).names)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(table, error) from error
    _checked(table, columns)
    return columns


def _parquet_rows(table: Path, wanted: Sequence[str]) -> Iterator[_Row]:
    import pyarrow
    import pyarrow.parquet

    columns = [name for name in _parquet_columns(table) if name in wanted]
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(table) as file:
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                for row in _python_rows(table, batch, number):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(table, error) from error


def _python_rows(table: Path, batch: pyarrow.RecordBatch, before: int) -> list[dict[str, object]]:
    """The rows of a batch that `before` others precede. Raises MaterialError."""
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
    except UnicodeDecodeError:
        row = before + 1 + next((row for row in range(len(batch)) if not _is_text(batch, row)), 0)
        raise MaterialError(f"{shown(table)}, row {row}: there is text that is not UTF-8") from None
    return rows


def _is_text(batch: pyarrow.RecordBatch, row: int) -> bool:
    try:
        batch.slice(row, 1).to_pylist()
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(table: Path, error: Exception) -> MaterialError:
    reason = " ".join(str(error).split())
    return MaterialError(f"{shown(table)}: no Parquet file that can be read: {reason[:200]}")
