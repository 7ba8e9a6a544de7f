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
from pathlib import Path
from typing import Any, Literal, TypeVar

from imagesafety.stored.folder_walk import FOLDER_FLAGS, stored_file, walk
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
                return stored_file(file.name, os.stat(name, dir_fd=parent, follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _trouble(error) from error

    async def remove(self, file: StoredFile) -> bool:
        """As Place.remove."""
        try:
            with self._parent_of(file.name) as (parent, name):
                now = stored_file(file.name, os.stat(name, dir_fd=parent, follow_symlinks=False))
                if now is None or now.version != file.version:
                    return False
                os.unlink(name, dir_fd=parent)
                with contextlib.suppress(OSError):  # it is gone, whatever becomes of this
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
        """Raises PlaceError if it is the place itself that can't be listed."""
        try:
            yield from walk(self._open_folder, prefix)
        except OSError as error:
            raise PlaceError(f"{self._path} can't be listed: {one_line(error)}") from error

    def _open_folder(self, path: str) -> int:
        """Opens a folder; its path is "" or ends with a slash. Raises PlaceError, OSError."""
        if not path:
            return self._open_root()
        with self._parent_of(path.removesuffix("/")) as (parent, name):
            return os.open(name, FOLDER_FLAGS, dir_fd=parent)

    @contextlib.contextmanager
    def _parent_of(self, name: str) -> Iterator[tuple[int, str]]:
        """The opened folder that holds a file, and the file's name in it. Raises OSError."""
        *folders, last = name.split("/")
        opened = self._open_root()
        try:
            for folder in folders:
                above, opened = opened, os.open(folder, FOLDER_FLAGS, dir_fd=opened)
                os.close(above)
            yield opened, last
        finally:
            os.close(opened)

    def _open_root(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PlaceError(f"{self._path} can't be opened: {one_line(error)}") from error


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Waits for what can't be broken off, even if it is cancelled."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait({task})


def _trouble(error: OSError) -> FileTroubleError:
    return FileTroubleError(UNREADABLE, error.strerror or one_line(error))
