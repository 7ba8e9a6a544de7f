"""The place of an open file: moved away, replaced or emptied, it is another one."""

from __future__ import annotations

from pathlib import Path


def is_gone(path: Path) -> bool:
    """True if the file is missing; False also where nobody may look."""
    try:
        return not path.exists()
    except OSError:
        return False


class FilePlace:
    """A path, and which file was there. What is written to another one may never be found again."""

    def __init__(self, file: Path | None) -> None:
        """With None, all is always well."""
        self.file = file
        self._identity: tuple[int, int] | None = None

    def remember(self) -> None:
        """Takes the file that is there now for ours. Raises OSError if there is none."""
        if self.file is not None:
            found = self.file.stat()
            self._identity = found.st_dev, found.st_ino

    def is_ours(self) -> bool:
        """True if the file that was remembered is there, with anything in it.

        Of one that was emptied, SQLite deletes the log to which we still write.
        """
        if self.file is None:
            return True
        try:
            found = self.file.stat()
        except OSError:
            return False
        return found.st_size > 0 and self._identity == (found.st_dev, found.st_ino)
