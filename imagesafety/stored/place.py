"""A place where files are stored, as a scan sees any of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

GONE, UNREADABLE, UNREACHABLE = "GONE", "UNREADABLE", "UNREACHABLE"
TOO_MANY_BYTES = "TOO_MANY_BYTES"  # as scoring.proto calls it


class PlaceError(Exception):
    """The place itself can't be used now; the message is one line."""


class PlaceSettingError(ValueError):
    """A place that can't be meant; the message is one line."""


class FileTroubleError(Exception):
    """A file can't be had; the message is one line. `may_pass`: another time, perhaps it can."""

    def __init__(self, reason: str, message: str, *, may_pass: bool = True) -> None:
        super().__init__(message)
        self.reason, self.may_pass = reason, may_pass


def gone() -> FileTroubleError:
    """What is said of a file that was removed since it was listed."""
    message = "it was removed before it could be looked at"
    return FileTroubleError(GONE, message, may_pass=False)


def too_large(most: int) -> FileTroubleError:
    """What is said of a file that is not read, as the service would not take it."""
    message = f"it is over {most} bytes, which the service does not take"
    return FileTroubleError(TOO_MANY_BYTES, message, may_pass=False)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it was listed.

    A name may hold any bytes, as surrogates where they are not UTF-8. `version` is another one once
    the file is. `size` is -1, and `modified` (seconds since 1970) None, where the place can't tell.
    """

    name: str
    size: int
    version: str
    modified: float | None = None
    aliases: tuple[str, ...] = ()

    def is_since(self, since: float | None) -> bool:
        """Whether it is not older than that; what has no time is not."""
        return since is None or self.modified is None or self.modified >= since


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A part of the place, such as a folder, that can't be listed."""

    name: str
    message: str


class Place(Protocol):
    """Every method raises PlaceError."""

    identity: str
    """Which place it is, without anything secret."""
    removing: Literal["delete", "purge"]
    """What removing a file is called there."""

    async def check(self) -> None:
        """Passes if the place can be used."""

    def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        """Yields files whose names begin with `prefix` and that are no older than `since`.

        Raises PlaceSettingError for a prefix where there can't be any.
        """

    async def read(self, file: StoredFile, most: int) -> bytes:
        """The file's bytes. Raises FileTroubleError, also for one over `most` bytes."""

    async def look(self, file: StoredFile) -> StoredFile | None:
        """The file as it is now, None if it is gone. Raises FileTroubleError."""

    async def remove(self, file: StoredFile) -> bool:
        """Removes it if it is still in this version; False if not. Raises FileTroubleError."""

    async def close(self) -> None:
        """Closes connections."""


def as_bytes(name: str) -> bytes:
    """A name as the bytes that it stands for."""
    return name.encode("utf-8", "surrogateescape")


def as_name(data: bytes) -> str:
    """Bytes as the name that stands for them."""
    return data.decode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """A name on one line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def one_line(error: BaseException) -> str:
    """What an error of others says, on one line."""
    text = " ".join(str(error).split())
    return printable(text[:300]) or type(error).__name__
