"""Append-only files for rows that wait for the database. Blocks; belongs in one thread.

Files end on `.spool` and sort by their names, which say whose they are (spool_owner.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.ledger.file_place import is_gone
from gateway.ledger.policy_text import PolicyText
from gateway.ledger.spool_lines import ROW_MARK, line_of_policy, line_of_row
from gateway.ledger.spool_owner import SUFFIX, Owner

MOST_BYTES = 4 * 1024 * 1024  # in a file; then the next one begins
COUNTED_BYTES = 64 * 1024 * 1024  # of files of dead processes; of more, rows are estimated
ROW_BYTES = 1024
_NAME = re.compile(r"(\d{10})-([0-9a-f]{8})\.spool")
_NUMBERED = re.compile(r"(\d{10})-[0-9a-f]{8}\.(?:spool|damaged)")

log = logging.getLogger("gateway")


@dataclass
class SpoolFile:
    """A file of ours, of which `size` bytes with `rows` rows are good."""

    path: Path
    size: int = 0
    rows: int = 0

    @property
    def token(self) -> str:
        """The token of its owner."""
        return self.path.stem.partition("-")[2]


class Spool:
    """The rows that wait, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner: Owner | None = None
        self._adopted: dict[str, Owner] = {}  # dead processes whose files are ours now
        self._waiting: deque[SpoolFile] = deque()  # complete; the oldest first
        self._open: SpoolFile | None = None  # that rows are added to
        self._descriptor = -1  # of that one

    @property
    def rows(self) -> int:
        """The number of rows that wait; an estimate for those of dead processes."""
        return sum(file.rows for file in self._waiting) + (self._open.rows if self._open else 0)

    @property
    def has_files(self) -> bool:
        """True if any file waits, even one without rows."""
        return bool(self._waiting) or (self._open is not None and self._open.size > 0)

    def adopt(self) -> None:
        """Takes over files whose owners are dead.

        Raises OSError where the folder can't be used: nothing could be written either.
        """
        ours = self._own()
        with os.scandir(self._folder) as entries:  # unlike glob, says if it may not look
            names = [entry.name for entry in entries]
        tokens = {match[2] for name in names if (match := _NAME.fullmatch(name))}
        tokens |= {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)}
        found: list[Path] = []
        for token in tokens - {ours, *self._adopted}:
            try:
                found += self._take_over(token)
            except OSError as error:
                log.error("files of %s in the spool can't be taken over: %s", token, error.strerror)
        left = COUNTED_BYTES
        for path in sorted(found):
            size, rows = _size_and_rows(path, count=left > 0)
            left -= size
            self._waiting.append(SpoolFile(path, size, rows))

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
            # Its owner stays locked, so that nobody takes it for a dead one's while we run. After
            # that its rows are found in the database already.
            log.error("%s can't be removed from the spool: %s", file.path, error.strerror)
            return
        if file.token in self._adopted and all(f.token != file.token for f in self._waiting):
            self._adopted.pop(file.token).remove()

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
        self._seal()
        owners = [*self._adopted.values(), *([self._owner] if self._owner else [])]
        for owner in owners:
            if any(file.token == owner.token for file in self._waiting):
                owner.leave()
            else:
                owner.remove()
        self._waiting.clear()
        self._adopted.clear()
        self._owner = None

    def _own(self) -> str:
        """The token of our own files. Raises OSError."""
        if self._owner is not None and self._owner.is_gone:
            self._disown(self._owner)
        if self._owner is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._owner = Owner.new(self._folder)
        return self._owner.token

    def _disown(self, owner: Owner) -> None:
        """Begin anew after somebody removed our lock, most likely with the whole folder."""
        self._seal()
        self._owner = None
        if any(file.token == owner.token for file in self._waiting):
            self._adopted[owner.token] = owner
        else:
            owner.leave()

    def _take_over(self, token: str) -> list[Path]:
        """The files of a dead process, which are ours then; none while it lives."""
        owner = Owner.take_over(self._folder, token)
        if owner is None:
            return []
        files = list(self._folder.glob(f"*-{token}.spool"))
        if files:
            self._adopted[token] = owner
        else:
            owner.remove()
        return files

    def _write(self, file: SpoolFile, content: bytes, rows: int) -> None:
        try:
            _write_all(self._descriptor, content)
            os.fdatasync(self._descriptor)
        except OSError:
            # After a failed fsync nobody knows what is on disk: that file gets no more.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, file.size)
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
        os.close(self._descriptor)
        if file.size:
            self._waiting.append(file)
            return
        with contextlib.suppress(OSError):
            file.path.unlink(missing_ok=True)

    def _current(self) -> SpoolFile:
        if self._open is not None and is_gone(self._open.path):
            self._seal()  # nobody would find what is added to it
        if self._open is None:
            token = self._own()
            path = self._folder / f"{self._next_number():010d}-{token}.spool"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            try:
                self._sync_folder()
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
            self._open, self._descriptor = SpoolFile(path), descriptor
        return self._open

    def _next_number(self) -> int:
        """Names sort by numbers and not by time, which may jump."""
        found = [_NUMBERED.fullmatch(path.name) for path in self._folder.iterdir()]
        return 1 + max((int(match[1]) for match in found if match), default=0)

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size_and_rows(path: Path, *, count: bool) -> tuple[int, int]:
    """Of a file that can't be read now, nothing: whoever replays it will see."""
    try:
        if not count:
            size = path.stat().st_size
            return size, size // ROW_BYTES + 1
        content = path.read_bytes()
        return len(content), content.count(b" " + ROW_MARK)
    except OSError:
        return 0, 1


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
