"""Where a quarantine keeps its files. Each is there whole or not at all, and stays.

What a scan removes elsewhere is nowhere else then: a file is on the disk when `write` returns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from imagesafety.stored.opening import sftp_options
from imagesafety.stored.place import PlaceSettingError, one_line

_SECONDS: Final = 300.0  # for one file, at most, on a server that is still there
_CAN_NOT_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)


class Store(Protocol):
    """Files by name. Every method raises whatever its backend does."""

    def prepare(self) -> None:
        """Makes the folder."""

    def read(self, name: str) -> bytes:
        """What a file has. Raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a file in place of the one that is there, if any."""

    def settle(self, name: str) -> None:
        """Has a file that was found there be on the disk, as if it was written now."""


def open_store(url: str, options: Mapping[str, Any]) -> Store:
    """The store that is meant. Raises PlaceSettingError."""
    check_url(url, options)
    scheme, found, rest = url.partition("://")
    if not found or scheme == "file":
        return FolderStore(Path(rest if found else url).expanduser())
    try:
        if scheme == "s3":
            return _S3Store(rest, options)
        return _SftpStore(url, options)
    except PlaceSettingError:
        raise
    except Exception as error:  # each backend has its own
        raise PlaceSettingError(f"the quarantine can't be used: {one_line(error)}") from error


def check_url(url: str, options: Mapping[str, Any]) -> None:
    """Raises PlaceSettingError for what can't be a quarantine; nothing is connected to."""
    scheme, found, rest = url.partition("://")
    if not found or scheme == "file":
        if not (rest if found else url):
            raise PlaceSettingError("the quarantine has no path")
        if options:
            raise PlaceSettingError("a folder of this machine takes no --quarantine-option")
    elif scheme == "s3":
        if not rest.partition("/")[0]:
            raise PlaceSettingError(f"{url}: the bucket is missing: s3://BUCKET/PREFIX")
    elif scheme in ("sftp", "ssh"):
        sftp_options(url, options)
    else:
        raise PlaceSettingError(f"{scheme}://… is no quarantine; a folder, s3:// or sftp:// is")


class FolderStore:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def prepare(self) -> None:
        """As Store.prepare."""
        folders = (self._folder, *self._folder.parents)
        missing = [folder for folder in folders if not folder.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in reversed(missing):
            _sync_folder(folder.parent)

    def read(self, name: str) -> bytes:
        """As Store.read."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """As Store.write."""
        # A name of its own, as another scan may be at the same file.
        part = self._folder / _part(name)
        try:
            opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(opened, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(opened)
            part.replace(self._folder / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)

    def settle(self, name: str) -> None:
        """As Store.settle."""
        with _opened(self._folder / name) as opened:
            os.fsync(opened)
        _sync_folder(self._folder)


class _S3Store:
    """Objects below a prefix; S3 itself has them whole or not at all."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        import s3fs

        self._root = root.rstrip("/")
        self._s3 = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False, **options)

    def prepare(self) -> None:
        self._s3.makedirs(self._root, exist_ok=True)

    def read(self, name: str) -> bytes:
        data: bytes = self._s3.cat_file(f"{self._root}/{name}")
        return data

    def write(self, name: str, data: bytes) -> None:
        self._s3.pipe_file(f"{self._root}/{name}", data)

    def settle(self, name: str) -> None:
        """It is there, or it is not."""


class _SftpStore:
    """A folder of another machine."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        import sshfs

        from imagesafety.stored.sftp_connection import DEFAULTS

        host, path, options = sftp_options(url, {**DEFAULTS, **options})
        self._root = path.rstrip("/")
        self._sftp = sshfs.SSHFileSystem(host, skip_instance_cache=True, **options)

    def prepare(self) -> None:
        self._sftp.makedirs(self._root or "/", exist_ok=True, timeout=_SECONDS)

    def read(self, name: str) -> bytes:
        data: bytes = self._sftp.cat_file(f"{self._root}/{name}", timeout=_SECONDS)
        return data

    def write(self, name: str, data: bytes) -> None:
        self._run(self._write, name, data)

    def settle(self, name: str) -> None:
        self._run(self._settle, name)

    def _run(self, work: Any, *arguments: object) -> None:
        from fsspec.asyn import sync

        sync(self._sftp.loop, work, *arguments, timeout=_SECONDS)

    async def _write(self, name: str, data: bytes) -> None:
        import asyncssh

        path, part = f"{self._root}/{name}", f"{self._root}/{_part(name)}"
        async with self._sftp._pool.get() as channel:
            try:
                async with channel.open(part, "wb") as file:
                    await file.write(data)
                    await _sync_there(file)
                try:
                    await channel.posix_rename(part, path)
                except asyncssh.SFTPOpUnsupported:  # then nothing may be there before
                    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                        await channel.remove(path)
                    await channel.rename(part, path)
            except asyncssh.SFTPError:
                with contextlib.suppress(asyncssh.SFTPError):
                    await channel.remove(part)
                raise

    async def _settle(self, name: str) -> None:
        path = f"{self._root}/{name}"
        async with self._sftp._pool.get() as channel, channel.open(path, "rb") as file:
            await _sync_there(file)


async def _sync_there(file: Any) -> None:
    """Has another machine write a file to its disk, if it can."""
    import asyncssh

    with contextlib.suppress(asyncssh.SFTPError):
        await file.fsync()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def _sync_folder(folder: Path) -> None:
    with _opened(folder) as opened:
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno not in _CAN_NOT_SYNC:  # some file systems need no such thing
                raise


def _part(name: str) -> str:
    return f"{name}.{secrets.token_hex(4)}.part"
