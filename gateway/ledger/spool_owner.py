"""Owners of the files in a spool folder. Blocks; belongs in the spool's thread.

Each process holds a lock file of its own, and its data files have that one's name in theirs. So
several may share the folder, one that starts takes over what dead ones left, and however much
waits in a spool, it costs one descriptor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from gateway.ledger.file_place import is_gone

SUFFIX = ".owner"


class Owner:
    """A lock on everything in the folder that has `token` in its name."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Use `new` or `take_over`."""
        self._path, self._descriptor = path, descriptor

    @classmethod
    def new(cls, folder: Path) -> Owner:
        """Our own, with a new token. Raises OSError."""
        while True:
            path = folder / f"{secrets.token_hex(4)}{SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Another process that starts just now may take it for a dead one's.
                if _lock(descriptor):
                    return cls(path, descriptor)
                os.close(descriptor)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise

    @classmethod
    def take_over(cls, folder: Path, token: str) -> Owner | None:
        """The lock of a dead process; None while its owner lives. Raises OSError."""
        path = folder / f"{token}{SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _lock(descriptor):
                return cls(path, descriptor)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @property
    def token(self) -> str:
        """The part of its files' names that only they have."""
        return self._path.stem

    @property
    def is_gone(self) -> bool:
        """True if somebody removed it, or moved the folder away."""
        return is_gone(self._path)

    def leave(self) -> None:
        """Lets go of files that are left to whoever comes next."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Lets go where no files are left."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _lock(descriptor: int) -> bool:
    """True if the file is ours now, and still has a name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0
