"""The report as a file of JSON lines: each is there once, however often the scan was killed.

Every line has the number that the state gave it. What the file has last says where to go on; a line
that was written in part is taken back.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

from imagesafety.stored.place import one_line
from imagesafety.stored.state import State

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class ReportError(Exception):
    """A report that can't be written; the message is one line."""


class ReportSettingError(ReportError):
    """What can't be a report at all."""


class ReportFile:
    """Lines that are appended to a file, which no other scan writes to. Raises ReportError."""

    def __init__(self, path: Path, state: State) -> None:
        """Goes on with a file that is there; of a new one it writes all that the state knows.

        Raises ReportSettingError for what is no regular file.
        """
        self._path, self._state = path, state
        try:
            self._file = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise ReportError(f"{path}: {one_line(error)}") from error
        try:
            self._take()
            self._last = self._find_last()
            state.skip_lines(self._last)
            self.write()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ReportError(f"{path}: {one_line(error)}") from error
            raise

    def write(self) -> None:
        """Appends what is new."""
        try:
            for number, line in self._state.lines_after(self._last):
                if line:
                    numbered = {"scan": self._state.id, "number": number, **line}
                    _write_all(self._file, json.dumps(numbered).encode() + b"\n")
                self._last = number
        except OSError as error:
            raise ReportError(f"{self._path}: {one_line(error)}") from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _take(self) -> None:
        """Takes a regular file for this process alone; the kernel gives it back at its end."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            # What is read back to find the last line would be what was just written, or never come.
            raise ReportSettingError(f"{self._path}: it is no regular file, as a report has to be")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{self._path}: another scan is writing this report"
            raise ReportError(message) from None

    def _find_last(self) -> int:
        """The number of the last line of this scan; the file ends after a whole line then."""
        last, end = 0, 0
        with os.fdopen(os.dup(self._file), "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                scan, number = self._parse(line)
                if scan == self._state.id:
                    last = max(last, number)
        if os.fstat(self._file).st_size > end:
            self._parse_start(end)
            os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return last

    def _parse(self, line: bytes) -> tuple[str, int]:
        try:
            content = json.loads(line)
            return str(content["scan"]), int(content["number"])
        except (ValueError, LookupError, TypeError):
            raise ReportError(f"{self._path}: it is something else than a report") from None

    def _parse_start(self, end: int) -> None:
        """Takes nothing back that is not the start of a line of ours."""
        start = os.pread(self._file, 9, end)
        if not b'{"scan": '.startswith(start):
            raise ReportError(f"{self._path}: it is something else than a report")


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
