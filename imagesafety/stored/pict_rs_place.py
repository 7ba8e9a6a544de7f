"""pict-rs itself, through its internal API: removing a file keeps its database true."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from imagesafety.pict_rs import (
    DamagedError,
    FileTooLargeError,
    Gap,
    NotStoredError,
    PictRs,
    PictRsError,
    UnreachableError,
)
from imagesafety.pict_rs_pages import StoredHash
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


class PictRsPlace:
    """The originals that pict-rs has. A name is a hash of pict-rs; what it names never changes."""

    removing: Literal["delete", "purge"] = "purge"

    def __init__(self, url: str, api_key: str) -> None:
        self.identity = f"pict-rs+{url.rstrip('/')}"
        self._pict_rs = PictRs(url, api_key)

    async def check(self) -> None:
        """Passes if pict-rs lists its hashes."""
        try:
            await self._pict_rs.page(limit=1)
        except DamagedError:
            pass  # a listing goes past that
        except PictRsError as error:
            raise PlaceError(one_line(error)) from error

    async def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        """As Place.files, from the newest to the oldest; a file may come twice."""
        if prefix:
            raise PlaceSettingError("pict-rs stores by hash: there is no --prefix to scan")
        try:
            until = set()
            if since is not None:
                time = datetime.fromtimestamp(max(since, 0.0), UTC)  # there are no older files
                until = {entry.hex for entry in await self._pict_rs.stored_before(time)}
            async with contextlib.aclosing(self._pict_rs.newest(until)) as listing:
                async for entry in listing:
                    yield _unlisted(entry) if isinstance(entry, Gap) else _stored(entry)
        except PictRsError as error:
            raise PlaceError(one_line(error)) from error

    async def read(self, file: StoredFile, most: int) -> bytes:
        """As Place.read."""
        if file.size > most:
            raise too_large(most)
        if not file.aliases:
            try:
                if not await self._pict_rs.lists(file.name):  # it was just being purged
                    raise gone()
            except PictRsError as error:
                raise _trouble(error) from error
            message = "pict-rs has no alias of it, so nobody can fetch it"
            raise FileTroubleError(UNREADABLE, message)
        for alias in file.aliases:
            try:
                async with contextlib.aclosing(self._pict_rs.fetch(alias, most)) as fetched:
                    return b"".join([chunk async for chunk in fetched])
            except NotStoredError:
                continue  # somebody may have deleted one upload of several
            except FileTooLargeError:
                raise too_large(most) from None
            except PictRsError as error:
                raise _trouble(error) from error
        raise gone()

    async def look(self, file: StoredFile) -> StoredFile | None:
        """As Place.look: with the aliases that it has now."""
        try:
            aliases = await self._pict_rs.look(file.name, file.aliases)
        except PictRsError as error:
            raise _trouble(error) from error
        return replace(file, aliases=aliases) if aliases else None

    async def remove(self, file: StoredFile) -> bool:
        """As Place.remove: purges it, with all its aliases and variants."""
        try:
            for alias in file.aliases:
                if await self._pict_rs.purge(alias):
                    return True
        except PictRsError as error:
            raise _trouble(error) from error
        return False

    async def close(self) -> None:
        """Closes the connections."""
        await self._pict_rs.close()


def _stored(entry: StoredHash) -> StoredFile:
    stored_at = entry.stored_at.timestamp() if entry.stored_at is not None else None
    size = entry.size if entry.size is not None else -1
    return StoredFile(entry.hex, size, "1", stored_at, entry.aliases)


def _unlisted(gap: Gap) -> Unlisted:
    name = f"a file stored before {gap.before.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    advice = "in 0.5, its /internal/prune_missing forgets files that its store has lost"
    return Unlisted(
        name, f"pict-rs fails to list it ({one_line(Exception(gap.message))}); {advice}"
    )


def _trouble(error: PictRsError) -> FileTroubleError | PlaceError:
    if isinstance(error, UnreachableError):
        return PlaceError(one_line(error))
    return FileTroubleError(UNREADABLE, one_line(error))
