"""The body of an upload, as it comes in: never whole, never more than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Receive


class UploadTooLargeError(Exception):
    """The body is over the limit."""


class ClientGoneError(Exception):
    """The client hung up before it had an answer."""


class Upload:
    """Reads an ASGI request body chunk by chunk; the sender waits while nobody asks for more."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._pushed_back = b""
        self._end = asyncio.Event()
        self.received = 0

    @property
    def ended(self) -> bool:
        """Whether there is no more to come."""
        return self._end.is_set()

    async def first_chunk(self) -> bytes:
        """The first bytes, empty if there are none. Raises as `__aiter__`.

        They stay part of what iterating yields.
        """
        self._pushed_back = await self._next()
        return self._pushed_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the body. Raises UploadTooLargeError and ClientGoneError."""
        while chunk := self._pushed_back or await self._next():
            self._pushed_back = b""
            yield chunk

    async def _next(self) -> bytes:
        """The next bytes; empty at the end of the body."""
        while not self.ended:
            chunk = await self._receive_some()
            self.received += len(chunk)
            if self.received > self._max_bytes:
                raise UploadTooLargeError
            if chunk:
                return chunk
        return b""

    async def _receive_some(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._end.set()
            raise ClientGoneError
        if not message.get("more_body", False):
            self._end.set()
        chunk: bytes = message.get("body", b"")
        return chunk

    async def wait_for_disconnect(self) -> None:
        """Returns when the client hangs up after it sent the whole body."""
        await self._end.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def discard_rest(self, seconds: float) -> None:
        """Reads what is still to come for at most `seconds`, over the limit too.

        An answer that overtakes the body is lost to the client if the connection is closed while
        it is still sending (RFC 9112, section 9.6).
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.ended:
                    await self._receive_some()
        except (TimeoutError, ClientGoneError):
            return
