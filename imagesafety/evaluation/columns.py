"""Columns of numbers in temporary files: rows cost memory only while they are looked at.

The files have no names, so a process that is killed leaves none behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_BUFFERED = 4096  # rows


class Column:
    """A column whose every row has `width` numbers of one type; filled, then read."""

    def __init__(self, folder: Path, dtype: npt.DTypeLike, width: int = 1) -> None:
        """`folder` is where the file lies."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the column
        self._dtype, self._width = np.dtype(dtype), width
        self._waiting: list[Sequence[float] | npt.NDArray[np.generic]] = []
        self._rows = 0

    def append(self, row: Sequence[float] | npt.NDArray[np.generic]) -> None:
        """Adds a row."""
        self._waiting.append(row)
        self._rows += 1
        if len(self._waiting) >= _BUFFERED:
            self._write()

    def read(self, place: int | None = None) -> npt.NDArray[np.generic]:
        """All rows: a view of the file, or one of the row's places, in memory."""
        self._write()
        shape = (self._rows, self._width)
        if 0 in shape:
            rows = np.empty(shape, self._dtype)
        else:
            rows = np.memmap(self._file, self._dtype, "r", shape=shape)
        return rows if place is None else np.ascontiguousarray(rows[:, place])

    def close(self) -> None:
        """Forgets everything."""
        self._file.close()

    def _write(self) -> None:
        if self._waiting:
            self._file.seek(0, 2)
            self._file.write(np.array(self._waiting, self._dtype).tobytes())
            self._file.flush()
            self._waiting.clear()


class Texts:
    """A column of texts of any length, of which few are read."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the file lies."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the column
        self._starts = Column(folder, np.int64)
        self._end, self._was_read = 0, False

    def append(self, text: bytes) -> None:
        """Adds a row."""
        self._starts.append((self._end,))
        if self._was_read:  # to seek for every row would write every row
            self._file.seek(self._end)
            self._was_read = False
        self._end += self._file.write(len(text).to_bytes(4, "little") + text)

    def read(self, row: int) -> bytes:
        """One row."""
        self._was_read = True
        self._file.seek(int(self._starts.read()[row, 0]))
        return self._file.read(int.from_bytes(self._file.read(4), "little"))

    def close(self) -> None:
        """Forgets everything."""
        self._starts.close()
        self._file.close()
