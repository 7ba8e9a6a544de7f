"""Files are read before they are needed: several at once, in a bounded part of memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable

from imagesafety.room import Room
from imagesafety.stored.place import (
    UNREACHABLE,
    FileTroubleError,
    Place,
    PlaceError,
    StoredFile,
)

FILES_AT_ONCE = 16
BYTES_AT_ONCE = 64 * 1024 * 1024
_HASHED_INLINE = 256 * 1024  # bytes that are hashed faster than a thread is asked to
_PAUSES = (0.5, 2.0)  # seconds between tries to read a file

Read = Callable[[StoredFile], Awaitable[bytes]]
WasRead = tuple[StoredFile, bytes | FileTroubleError]


async def read_patiently(place: Place, file: StoredFile, most: int) -> bytes:
    """The file's bytes, also after a moment without the place.

    Raises PlaceError if it is the place that can't be used, and FileTroubleError if it is the file:
    one that nobody can fetch must not keep a scan from all others.
    """
    said = ""
    for pause in (*_PAUSES, None):
        try:
            return await place.read(file, most)
        except PlaceError as error:
            said = str(error)
        if pause is not None:
            await asyncio.sleep(pause)
    await place.check()
    raise FileTroubleError(UNREACHABLE, said)


async def sha256_of(data: bytes) -> bytes:
    """The SHA-256, without keeping others waiting."""
    if len(data) <= _HASHED_INLINE:
        return hashlib.sha256(data).digest()
    return (await asyncio.to_thread(hashlib.sha256, data)).digest()


async def read_ahead(
    files: AsyncIterable[StoredFile],
    read: Read,
    *,
    most_files: int = FILES_AT_ONCE,
    most_bytes: int = BYTES_AT_ONCE,
) -> AsyncGenerator[WasRead, None]:
    """Yields each file with its bytes, or why there are none, as they come.

    Raises what `files` raises, and of `read` what is no FileTroubleError.
    """
    room = Room(most_files, most_bytes)
    ready: asyncio.Queue[WasRead | BaseException | None] = asyncio.Queue()
    reading: set[asyncio.Task[None]] = set()

    async def read_one(file: StoredFile) -> None:
        try:
            ready.put_nowait((file, await read(file)))
        except FileTroubleError as error:
            ready.put_nowait((file, error))
        except Exception as error:
            ready.put_nowait(error)

    async def read_all() -> None:
        ended: Exception | None
        try:
            async for file in files:
                await room.enter(max(file.size, 0))
                task = asyncio.create_task(read_one(file))
                reading.add(task)
                task.add_done_callback(reading.discard)
            ended = None
        except Exception as error:
            ended = error
        if reading:  # what was listed before is not read in vain
            await asyncio.wait(reading)
        ready.put_nowait(ended)

    listing = asyncio.create_task(read_all())
    try:
        while (found := await ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
            room.leave(max(found[0].size, 0))
    finally:
        await _end(listing)
        for task in list(reading):
            await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await asyncio.wait({task})
