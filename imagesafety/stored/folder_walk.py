"""All files below a folder of this machine. One bad entry is told of, and ends nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass

from imagesafety.stored.place import StoredFile, Unlisted, one_line

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64  # folders that are open at once, as a process may open few files

Found = Generator[StoredFile | Unlisted, None, None]


def walk(open_folder: Callable[[str], int], prefix: str) -> Found:
    """Yields what has names that begin with `prefix`, and why something can't be looked at.

    `open_folder` opens one by its path, which is "" or ends with a slash. Raises OSError if the
    first folder can't be listed.
    """
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            first = Listing(path, open_folder(path))
        except OSError as error:
            if not path or not isinstance(error, FileNotFoundError):
                yield _unlisted(path, error)
        else:
            yield from _walk_down([first], prefix, waiting)


def stored_file(name: str, state: os.stat_result) -> StoredFile | None:
    """None for what is no regular file."""
    if not stat.S_ISREG(state.st_mode):
        return None
    # Time and size, as rsync compares them. The inode would be another one after each mount of what
    # FUSE shows, and the time of the last change after each chown or hard link of a backup: then
    # all that is stored would be scored anew.
    version = f"{state.st_mtime_ns}-{state.st_size}"
    return StoredFile(name, state.st_size, version, max(state.st_mtime, state.st_ctime))


@dataclass
class Listing:
    """A folder that is being listed: its path, and the opened folder, which it closes."""

    path: str
    opened: int

    def __post_init__(self) -> None:
        """Raises OSError."""
        try:
            self._entries = os.scandir(self.opened)
        except OSError:
            os.close(self.opened)
            raise

    def next(self) -> os.DirEntry[str] | None:
        """The next entry, None after the last. Raises OSError."""
        return next(self._entries, None)

    def inside(self, name: str) -> Listing:
        """The listing of a folder in this one. Raises OSError."""
        return Listing(f"{self.path}{name}/", os.open(name, FOLDER_FLAGS, dir_fd=self.opened))

    def close(self) -> None:
        """Closes the folder."""
        self._entries.close()
        os.close(self.opened)


def _walk_down(way: list[Listing], prefix: str, waiting: list[str]) -> Found:
    """Goes down first; of each folder on the way only the place in it is kept.

    Every folder on the way is open: `waiting` gets those that are too deep for that.
    """
    try:
        while way:
            try:
                entry = way[-1].next()
            except OSError as error:
                yield _unlisted(way[-1].path, error)
                entry = None
            if entry is None:
                way.pop().close()
                continue
            name = way[-1].path + entry.name
            if not name.startswith(prefix) and not prefix.startswith(f"{name}/"):
                continue
            is_folder = False
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder:
                    _enter(way, entry.name, waiting)
                    continue
                file = stored_file(name, entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            except OSError as error:
                yield _unlisted(f"{name}/" if is_folder else name, error)
                continue
            if file is not None and name.startswith(prefix):
                yield file
    finally:
        for listing in way:
            listing.close()


def _enter(way: list[Listing], name: str, waiting: list[str]) -> None:
    """Goes into a folder, now or later. Raises OSError."""
    if len(way) < _DEEPEST:
        way.append(way[-1].inside(name))
    else:
        waiting.append(f"{way[-1].path}{name}/")


def _unlisted(name: str, error: OSError) -> Unlisted:
    """What is told of it. Raises OSError if it is the first folder, without which there is none."""
    if not name:
        raise error
    return Unlisted(name, error.strerror or one_line(error))
