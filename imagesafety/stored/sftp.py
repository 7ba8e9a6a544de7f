"""A folder of another machine, through SFTP and sshfs. The host's key has to be a known one."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Literal, TypeVar

import asyncssh

from imagesafety.stored.place import (
    UNREADABLE,
    FileTroubleError,
    PlaceError,
    StoredFile,
    Unlisted,
    as_bytes,
    as_name,
    gone,
    one_line,
    too_large,
)
from imagesafety.stored.sftp_connection import ANSWER_SECONDS, ERRORS, Heard, SftpConnection

T = TypeVar("T")

_BATCH = 256  # names that are listed at once
_MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
_CHUNK = 256 * 1024  # bytes that have to come while we wait for an answer


class SftpFolder:
    """Regular files below a path; symbolic links are not followed."""

    removing: Literal["delete", "purge"] = "delete"

    def __init__(
        self,
        address: str,
        host: str,
        path: str,
        options: Mapping[str, Any],
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`options` are those of asyncssh.connect; `address` names the place in messages."""
        self.identity, self._base = address, as_bytes(path.rstrip("/") + "/")
        self._connection = SftpConnection(address, host, options, answer_seconds)

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
        heard = Heard()

        async def work(channel: asyncssh.SFTPClient) -> bytes:
            path = self._base + as_bytes(file.name)
            if _kind(await channel.lstat(path)) != stat.S_IFREG:
                raise gone()
            async with channel.open(path, "rb") as opened:
                return await _read(opened, most + 1, heard)

        data = await self._with_channel(work, heard)
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
        await self._connection.close()

    async def _entries(self, folder: str) -> AsyncGenerator[asyncssh.SFTPName | Unlisted, None]:
        connection = await self._connection.get()
        channels = connection._pool.get()
        path = (self._base + as_bytes(folder)).rstrip(b"/") or b"/"
        try:
            channel = await self._connection.on(connection, channels.__aenter__())
        except ERRORS as error:
            raise self._connection.lost(connection, error) from error
        listing = channel.scandir(path)
        try:
            while batch := await self._connection.on(connection, _batch(listing)):
                for entry in batch:
                    if _raw(entry.filename) not in (b".", b".."):
                        yield entry
        except _MISSING:
            if not folder:
                raise PlaceError(f"{self.identity}: no such folder") from None
        except ERRORS as error:
            if not isinstance(error, asyncssh.SFTPError) or isinstance(error, _LOST) or not folder:
                raise self._connection.lost(connection, error) from error
            yield Unlisted(folder, one_line(error))
        finally:
            await self._connection.end(connection, listing.aclose())
            await self._connection.end(connection, channels.__aexit__(None, None, None))

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
        self,
        work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]],
        heard: Heard | None = None,
    ) -> T:
        connection = await self._connection.get()

        async def on_channel() -> T:
            async with connection._pool.get() as channel:
                return await work(channel)

        try:
            return await self._connection.on(connection, on_channel(), heard)
        except _MISSING:
            raise gone() from None
        except ERRORS as error:
            if isinstance(error, asyncssh.SFTPError) and not isinstance(error, _LOST):
                raise FileTroubleError(UNREADABLE, one_line(error)) from error
            raise self._connection.lost(connection, error) from error


async def _batch(listing: Any) -> list[asyncssh.SFTPName]:
    found: list[asyncssh.SFTPName] = []
    while len(found) < _BATCH and (entry := await anext(listing, None)) is not None:
        found.append(entry)
    return found


async def _read(opened: Any, most: int, heard: Heard) -> bytes:
    """Reads a part after the other, as a slow server is not one that does not answer."""
    data = bytearray()
    while len(data) < most:
        wanted = min(most - len(data), _CHUNK)
        part = _raw(await opened.read(wanted))
        heard.again()
        data += part
        if len(part) < wanted:
            break
    return bytes(data)


def _kind(attributes: asyncssh.SFTPAttrs) -> int:
    """S_IFREG, S_IFDIR or whatever else it is."""
    return stat.S_IFMT(attributes.permissions or 0)


def _stored(name: str, attributes: asyncssh.SFTPAttrs) -> StoredFile:
    size = attributes.size if attributes.size is not None else -1
    modified = attributes.mtime
    return StoredFile(name, size, f"{modified}-{size}", modified)


def _raw(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else as_bytes(value)
