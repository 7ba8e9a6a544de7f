"""A folder of another machine, through SFTP and sshfs. The host's key has to be a known one."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Literal, TypeVar

import asyncssh
import sshfs

from imagesafety.stored.place import (
    UNREADABLE,
    FileTroubleError,
    PlaceError,
    PlaceSettingError,
    StoredFile,
    Unlisted,
    as_bytes,
    as_name,
    gone,
    one_line,
    too_large,
)

T = TypeVar("T")

_BATCH = 256  # names that are listed at once
_MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
_ERRORS = (OSError, asyncssh.Error, ValueError, TimeoutError)  # ValueError: no channel opens


class SftpFolder:
    """Regular files below a path; symbolic links are not followed."""

    removing: Literal["delete", "purge"] = "delete"

    def __init__(self, address: str, host: str, path: str, options: Mapping[str, Any]) -> None:
        """`options` are those of asyncssh.connect; `address` names the place in messages."""
        self.identity = address
        self._host, self._base = host, as_bytes(path.rstrip("/") + "/")
        # sshfs would take any host key; asyncssh takes those in ~/.ssh/known_hosts if () is said.
        self._options = {"known_hosts": (), **options}
        self._connection: Any = None
        self._connecting = asyncio.Lock()

    async def check(self) -> None:
        """Passes if the folder is there."""

        async def work(channel: asyncssh.SFTPClient) -> bool:
            return await channel.isdir(self._base)

        try:
            is_folder = await self._with_channel(work)
        except FileTroubleError as error:
            raise PlaceError(f"{self.identity} can't be used: {error}") from error
        if not is_folder:
            raise PlaceError(f"{self.identity}: no such folder")

    async def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        """As Place.files. Folders that wait to be listed are remembered, files are not."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            async with contextlib.aclosing(self._entries(folder)) as entries:
                async for found in entries:
                    if isinstance(found, Unlisted):
                        yield found
                        continue
                    name = folder + as_name(_raw(found.filename))
                    if _kind(found.attrs) == stat.S_IFDIR:
                        inside = f"{name}/"
                        if inside.startswith(prefix) or prefix.startswith(inside):
                            waiting.append(inside)
                    elif _kind(found.attrs) == stat.S_IFREG and name.startswith(prefix):
                        file = _stored(name, found.attrs)
                        if file.is_since(since):
                            yield file

    async def read(self, file: StoredFile, most: int) -> bytes:
        """As Place.read."""
        if file.size > most:
            raise too_large(most)

        async def work(channel: asyncssh.SFTPClient) -> bytes:
            path = self._base + as_bytes(file.name)
            if _kind(await channel.lstat(path)) != stat.S_IFREG:
                raise gone()
            async with channel.open(path, "rb") as opened:
                return _raw(await opened.read(most + 1))

        data = await self._with_channel(work)
        if len(data) > most:
            raise too_large(most)
        return data

    async def look(self, file: StoredFile) -> StoredFile | None:
        """As Place.look."""

        async def work(channel: asyncssh.SFTPClient) -> StoredFile | None:
            attributes = await channel.lstat(self._base + as_bytes(file.name))
            is_file = _kind(attributes) == stat.S_IFREG
            return _stored(file.name, attributes) if is_file else None

        return await self._or_gone(work, None)

    async def remove(self, file: StoredFile) -> bool:
        """As Place.remove."""

        async def work(channel: asyncssh.SFTPClient) -> bool:
            path = self._base + as_bytes(file.name)
            if _stored(file.name, await channel.lstat(path)).version != file.version:
                return False
            await channel.remove(path)
            return True

        return await self._or_gone(work, False)

    async def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*_ERRORS):
                await self._on(connection, connection._pool.close())
                await self._on(connection, connection._stack.aclose())

    async def _entries(self, folder: str) -> AsyncGenerator[asyncssh.SFTPName | Unlisted, None]:
        connection = await self._connected()
        channels = connection._pool.get()
        path = (self._base + as_bytes(folder)).rstrip(b"/") or b"/"
        try:
            channel = await self._on(connection, channels.__aenter__())
        except _ERRORS as error:
            raise self._lost(error) from error
        listing = channel.scandir(path)
        try:
            while batch := await self._on(connection, _batch(listing)):
                for entry in batch:
                    if _raw(entry.filename) not in (b".", b".."):
                        yield entry
        except _MISSING:
            if not folder:
                raise PlaceError(f"{self.identity}: no such folder") from None
        except _ERRORS as error:
            if not isinstance(error, asyncssh.SFTPError) or isinstance(error, _LOST) or not folder:
                raise self._lost(error) from error
            yield Unlisted(folder, one_line(error))
        finally:
            with contextlib.suppress(*_ERRORS, RuntimeError):  # it may run, if this was cancelled
                await self._on(connection, listing.aclose())
            with contextlib.suppress(*_ERRORS):
                await self._on(connection, channels.__aexit__(None, None, None))

    async def _or_gone(
        self, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]], missing: T
    ) -> T:
        try:
            return await self._with_channel(work)
        except FileTroubleError as error:
            if error.reason == gone().reason:
                return missing
            raise

    async def _with_channel(
        self, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]]
    ) -> T:
        connection = await self._connected()

        async def on_channel() -> T:
            async with connection._pool.get() as channel:
                return await work(channel)

        try:
            return await self._on(connection, on_channel())
        except _MISSING:
            raise gone() from None
        except _ERRORS as error:
            if isinstance(error, asyncssh.SFTPError) and not isinstance(error, _LOST):
                raise FileTroubleError(UNREADABLE, one_line(error)) from error
            raise self._lost(error) from error

    async def _connected(self) -> Any:
        """The connection, made anew after it was lost."""
        async with self._connecting:
            if self._connection is None:
                try:
                    self._connection = await asyncio.to_thread(
                        sshfs.SSHFileSystem, self._host, skip_instance_cache=True, **self._options
                    )
                except asyncssh.HostKeyNotVerifiable as error:
                    raise PlaceError(
                        f"{self.identity}: the host's key is not a known one: {one_line(error)}; "
                        "`ssh-keyscan` shows it, `known_hosts` has to hold it"
                    ) from error
                except TypeError as error:
                    raise PlaceSettingError(f"{self.identity}: {one_line(error)}") from error
                except _ERRORS as error:
                    raise self._lost(error) from error
            return self._connection

    async def _on(self, connection: Any, work: Coroutine[Any, Any, T]) -> T:
        """Runs it where the connection lives: on fsspec's own event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, connection.loop))

    def _lost(self, error: BaseException) -> PlaceError:
        self._connection = None
        return PlaceError(f"{self.identity} can't be reached: {one_line(error)}")


async def _batch(listing: Any) -> list[asyncssh.SFTPName]:
    found: list[asyncssh.SFTPName] = []
    while len(found) < _BATCH and (entry := await anext(listing, None)) is not None:
        found.append(entry)
    return found


def _kind(attributes: asyncssh.SFTPAttrs) -> int:
    """S_IFREG, S_IFDIR or whatever else it is."""
    return stat.S_IFMT(attributes.permissions or 0)


def _stored(name: str, attributes: asyncssh.SFTPAttrs) -> StoredFile:
    size = attributes.size if attributes.size is not None else -1
    modified = attributes.mtime
    return StoredFile(name, size, f"{modified}-{size}", modified)


def _raw(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else as_bytes(value)
