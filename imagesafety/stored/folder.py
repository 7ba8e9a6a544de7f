"""A folder of this machine. Nothing is followed that leads out of it.

Everything is opened relative to the folder that holds it, and no symbolic link on the way, so that
a folder that is replaced by a link during a scan leads nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import stat
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from imagesafety.stored.place import (
    UNREADABLE,
    FileTroubleError,
    PlaceError,
    PlaceSettingError,
    StoredFile,
    Unlisted,
    gone,
    one_line,
    too_large,
)

T = TypeVar("T")

_BATCH = 256  # names that are listed at once
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Folder:
    """Regular files in a folder and all folders below it."""

    removing: Literal["delete", "purge"] = "delete"

    def __init__(self, path: Path) -> None:
        """Raises PlaceSettingError if there is no such folder."""
        self._path = path.absolute()
        if not self._path.is_dir():
            raise PlaceSettingError(f"{path}: no such folder")
        self.identity = f"file://{self._path.resolve()}"

    async def check(self) -> None:
        """Passes if the folder can be opened."""
        os.close(self._open_root())

    async def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        """As Place.files. A file is as old as its last change, of whatever kind."""
        found = self._walk(prefix)

        def batch_of_it() -> list[StoredFile | Unlisted]:
            return list(itertools.islice(found, _BATCH))

        with contextlib.closing(found):
            while batch := await _to_its_end(asyncio.to_thread(batch_of_it)):
                for entry in batch:
                    if isinstance(entry, Unlisted) or entry.is_since(since):
                        yield entry

    async def read(self, file: StoredFile, most: int) -> bytes:
        """As Place.read."""
        return await asyncio.to_thread(self._read, file, most)

    async def look(self, file: StoredFile) -> StoredFile | None:
        """As Place.look."""
        try:
            with self._parent_of(file.name) as (parent, name):
                return _stored(file.name, os.stat(name, dir_fd=parent, follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _trouble(error) from error

    async def remove(self, file: StoredFile) -> bool:
        """As Place.remove."""
        try:
            with self._parent_of(file.name) as (parent, name):
                now = _stored(file.name, os.stat(name, dir_fd=parent, follow_symlinks=False))
                if now is None or now.version != file.version:
                    return False
                os.unlink(name, dir_fd=parent)
                os.fsync(parent)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _trouble(error) from error
        return True

    async def close(self) -> None:
        """Nothing stays open."""

    def _read(self, file: StoredFile, most: int) -> bytes:
        try:
            with self._parent_of(file.name) as (parent, name):
                opened = os.open(name, _FILE, dir_fd=parent)
            with open(opened, "rb") as content:  # noqa: PTH123 - a descriptor
                state = os.fstat(opened)
                if not stat.S_ISREG(state.st_mode):
                    raise gone()
                data = content.read(most + 1) if state.st_size <= most else b""
        except (FileNotFoundError, NotADirectoryError):
            raise gone() from None
        except OSError as error:
            raise _trouble(error) from error
        if len(data) > most or state.st_size > most:
            raise too_large(most)
        return data

    def _walk(self, prefix: str) -> Generator[StoredFile | Unlisted, None, None]:
        """Goes down first; of each folder on the way only the place in it is kept."""
        way = [_Listing("", self._open_root())]
        try:
            while way:
                entry = way[-1].next()
                if entry is None:
                    way.pop().close()
                    continue
                name = way[-1].path + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not f"{name}/".startswith(prefix) and not prefix.startswith(f"{name}/"):
                        continue
                    try:
                        opened = os.open(entry.name, _FOLDER, dir_fd=way[-1].opened)
                        way.append(_Listing(f"{name}/", opened))
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        yield Unlisted(f"{name}/", error.strerror or one_line(error))
                elif name.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError):
                        if (file := _stored(name, entry.stat(follow_symlinks=False))) is not None:
                            yield file
        except OSError as error:
            raise PlaceError(f"{self._path} can't be listed: {one_line(error)}") from error
        finally:
            for listing in way:
                listing.close()

    @contextlib.contextmanager
    def _parent_of(self, name: str) -> Iterator[tuple[int, str]]:
        """The opened folder that holds a file, and the file's name in it. Raises OSError."""
        *folders, last = name.split("/")
        opened = self._open_root()
        try:
            for folder in folders:
                above, opened = opened, os.open(folder, _FOLDER, dir_fd=opened)
                os.close(above)
            yield opened, last
        finally:
            os.close(opened)

    def _open_root(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PlaceError(f"{self._path} can't be opened: {one_line(error)}") from error


@dataclass
class _Listing:
    """A folder that is being listed: its path with a slash at the end, and the opened folder."""

    path: str
    opened: int

    def __post_init__(self) -> None:
        self._entries = os.scandir(self.opened)

    def next(self) -> os.DirEntry[str] | None:
        return next(self._entries, None)

    def close(self) -> None:
        self._entries.close()
        os.close(self.opened)


def _stored(name: str, state: os.stat_result) -> StoredFile | None:
    """None for what is no regular file."""
    if not stat.S_ISREG(state.st_mode):
        return None
    version = f"{state.st_mtime_ns}-{state.st_size}"
    return StoredFile(name, state.st_size, version, max(state.st_mtime, state.st_ctime))


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Waits for what can't be broken off, even if it is cancelled."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait({task})


def _trouble(error: OSError) -> FileTroubleError:
    return FileTroubleError(UNREADABLE, error.strerror or one_line(error))
