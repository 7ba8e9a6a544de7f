"""Where the state of a scan is kept, and that only one scan uses it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from imagesafety.stored.place import one_line
from imagesafety.stored.state import StateError


def default_state_file(place: str, environment: Mapping[str, str]) -> Path:
    """The file for a place: named by it, below the folder for what programs keep."""
    home = environment.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[:60]
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return Path(home) / "imagesafety" / "scans" / f"{readable}-{digest}.sqlite"


@contextlib.contextmanager
def locked(state_file: Path) -> Iterator[None]:
    """Keeps other scans off the state. Raises StateError if there is one.

    The kernel gives the lock back whenever the process ends, however it does.
    """
    lock_file = state_file.with_name(f"{state_file.name}.lock")
    try:
        state_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{lock_file}: {one_line(error)}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"another scan is running with this state: {state_file}"
            raise StateError(message) from None
        yield
    finally:
        os.close(lock)
