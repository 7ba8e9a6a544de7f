"""Append-only files for rows that wait for the database. Blocks; belongs in one thread.

Each process locks its own files with flock, so that several may share the folder, and one that
starts takes over what dead ones left. Files end on `.spool` and sort by their names.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.ledger.policy_text import PolicyText
from gateway.ledger.spool_lines import (
    ROW_MARK,
    line_of_policy,
    line_of_row,
)

MOST_BYTES = 4 * 1024 * 1024  # in a file; then the next one begins
_NAME = re.compile(r"(\d{10})-[0-9a-f]{8}\.spool")

log = logging.getLogger("gateway")


@dataclass
class SpoolFile:
    """A file that is locked by us, of which `size` bytes with `rows` rows are good."""

    path: Path
    descriptor: int
    size: int = 0
    rows: int = 0


class Spool:
    """The rows that wait, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: deque[SpoolFile] = deque()  # complete; the oldest first
        self._open: SpoolFile | None = None  # that rows are added to

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return sum(file.rows for file in self._waiting) + (self._open.rows if self._open else 0)

    @property
    def has_files(self) -> bool:
        """Whether anything waits, be it no rows."""
        return bool(self._waiting) or (self._open is not None and self._open.size > 0)

    def adopt(self) -> None:
        """Takes over files whose owners are dead. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = {file.path for file in self._files()}
        for path in sorted(self._folder.glob("*.spool")):
            if path in ours:
                continue
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if not _lock(descriptor):
                os.close(descriptor)
                continue
            content = path.read_bytes()
            self._waiting.append(
                SpoolFile(path, descriptor, len(content), content.count(b" " + ROW_MARK))
            )

    def append(
        self, rows: Sequence[Mapping[str, object]], policies: Sequence[PolicyText] = ()
    ) -> None:
        """Adds rows durably, behind those that are there. Raises OSError, and then adds none."""
        lines = [line_of_policy(policy) for policy in policies]
        lines += [line_of_row(row) for row in rows]
        self._write(self._current(), b"".join(lines), len(rows))

    def oldest(self) -> SpoolFile | None:
        """The oldest file; nothing is added to it any more. None when nothing waits."""
        if not self._waiting:
            self._seal()
        return self._waiting[0] if self._waiting else None

    def discard(self, file: SpoolFile, *, keep: bool = False) -> None:
        """Forgets a file whose rows are in the database.

        `keep` leaves it to people, under a name that ends on `.damaged`.
        """
        self._waiting.remove(file)
        try:
            if keep:
                file.path.rename(file.path.with_suffix(".damaged"))
            else:
                file.path.unlink(missing_ok=True)
            self._sync_folder()
        except OSError as error:
            # It stays locked, so that nobody takes it for a dead one's while we run. After that its
            # rows are found in the database already.
            log.error("%s can't be removed from the spool: %s", file.path, error.strerror)
        else:
            os.close(file.descriptor)

    def set_aside(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Adds rows that the database refuses to a file for people. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._folder / "refused", flags, 0o600)
        try:
            _write_all(descriptor, b"".join(line_of_row(row) for row in rows))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Leaves the files to whoever comes next."""
        for file in self._files():
            if file.size == 0:
                with contextlib.suppress(OSError):
                    file.path.unlink(missing_ok=True)
            os.close(file.descriptor)
        self._waiting.clear()
        self._open = None

    def _files(self) -> list[SpoolFile]:
        return [*self._waiting, *([self._open] if self._open else [])]

    def _write(self, file: SpoolFile, content: bytes, rows: int) -> None:
        try:
            _write_all(file.descriptor, content)
            os.fdatasync(file.descriptor)
        except OSError:
            # After a failed fsync nobody knows what is on disk: that file gets no more.
            with contextlib.suppress(OSError):
                os.ftruncate(file.descriptor, file.size)
            self._seal()
            raise
        file.size += len(content)
        file.rows += rows
        if file.size > MOST_BYTES:
            self._seal()

    def _seal(self) -> None:
        file, self._open = self._open, None
        if file is None:
            return
        if file.size:
            self._waiting.append(file)
            return
        with contextlib.suppress(OSError):
            file.path.unlink(missing_ok=True)
        os.close(file.descriptor)

    def _current(self) -> SpoolFile:
        while self._open is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{self._next_number():010d}-{secrets.token_hex(4)}.spool"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            try:
                # Another process that starts just now may take it for a dead one's.
                if not _lock(descriptor):
                    os.close(descriptor)
                    continue
                self._sync_folder()
            except OSError:
                os.close(descriptor)
                raise
            self._open = SpoolFile(path, descriptor)
        return self._open

    def _next_number(self) -> int:
        """Names sort by numbers and not by time, which may jump."""
        found = [_NAME.fullmatch(path.name) for path in self._folder.glob("*.spool")]
        return 1 + max((int(match[1]) for match in found if match), default=0)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _lock(descriptor: int) -> bool:
    """Whether the file is ours now, and still has a name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0
