"""A connection to an SFTP server through sshfs, which waits for no answer for ever."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

import asyncssh
import sshfs

from imagesafety.stored.place import PlaceError, PlaceSettingError, one_line

T = TypeVar("T")

ERRORS = (OSError, asyncssh.Error, ValueError, TimeoutError)  # ValueError: no channel opens
ANSWER_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 5.0

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        # sshfs would take any host key; asyncssh takes those in ~/.ssh/known_hosts if () is said.
        "known_hosts": (),
        # A server that is stopped or cut off says nothing, for which asyncssh would wait for ever.
        "connect_timeout": 30,
        "keepalive_interval": 15,
        "keepalive_count_max": 3,
    }
)
"""Options of asyncssh.connect, where none are given."""


@dataclass
class Heard:
    """When the server was last heard of."""

    at: float = field(default_factory=time.monotonic)

    def again(self) -> None:
        """It was heard of just now."""
        self.at = time.monotonic()


class SftpConnection:
    """Made when it is needed, and anew after it was lost."""

    def __init__(
        self, identity: str, host: str, options: Mapping[str, Any], answer_seconds: float
    ) -> None:
        """`identity` names the place in messages; an answer may take `answer_seconds`."""
        self._identity, self._host = identity, host
        self._options = {**DEFAULTS, **options}
        self._answer_seconds = answer_seconds
        self._connection: Any = None
        self._connecting = asyncio.Lock()

    async def get(self) -> Any:
        """The connection, of sshfs. Raises PlaceError and PlaceSettingError."""
        async with self._connecting:
            if self._connection is None:
                try:
                    self._connection = await asyncio.to_thread(
                        sshfs.SSHFileSystem, self._host, skip_instance_cache=True, **self._options
                    )
                except asyncssh.HostKeyNotVerifiable as error:
                    raise PlaceError(
                        f"{self._identity}: the host's key is not a known one: {one_line(error)}; "
                        "`ssh-keyscan` shows it, `known_hosts` has to hold it"
                    ) from error
                except TypeError as error:
                    raise PlaceSettingError(f"{self._identity}: {one_line(error)}") from error
                except ERRORS as error:
                    raise self.lost(None, error) from error
            return self._connection

    async def on(
        self, connection: Any, work: Coroutine[Any, Any, T], heard: Heard | None = None
    ) -> T:
        """Runs it where the connection lives: on fsspec's own event loop.

        Raises TimeoutError, and ends the connection, if nothing is heard of the server for too
        long: since the beginning, or since `heard` says that it was.
        """
        heard = heard or Heard()
        heard.again()
        return await _on(connection, work, self._answer_seconds, heard)

    async def end(self, connection: Any, work: Coroutine[Any, Any, object]) -> None:
        """Runs what cleans up, for a short time only; it does not matter if it fails."""
        seconds = min(self._answer_seconds, _CLOSE_SECONDS)
        # RuntimeError: a listing that was cancelled may run still.
        with contextlib.suppress(*ERRORS, RuntimeError):
            await _on(connection, work, seconds, Heard())

    def lost(self, connection: Any, error: BaseException) -> PlaceError:
        """Has another connection made than this one; what to raise."""
        if self._connection is connection:
            self._connection = None
        return PlaceError(f"{self._identity} can't be reached: {one_line(error)}")

    async def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self.end(connection, connection._pool.close())
            await self.end(connection, connection._stack.aclose())


async def _on(connection: Any, work: Coroutine[Any, Any, T], seconds: float, heard: Heard) -> T:
    future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, connection.loop))
    try:
        while not future.done():
            left = heard.at + seconds - time.monotonic()
            if left <= 0:
                # What is under way waits for answers even in order to end.
                connection.loop.call_soon_threadsafe(connection._client.abort)
                raise TimeoutError(f"it did not answer for {seconds:g} s")
            await asyncio.wait({future}, timeout=left)
        return future.result()
    finally:
        future.cancel()
