"""The body of an upload, as it comes in: kept while it may be needed again, if there is room."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator

from starlette.types import Receive

from gateway.kept_bytes import KeptBytes
from gateway.upload_form import FileForm, MalformedFormError


class UploadTooLargeError(Exception):
    """The body is over the limit."""


class ClientGoneError(Exception):
    """The client hung up before it had an answer."""


class Upload:
    """Reads an ASGI request body chunk by chunk; the sender waits while nobody asks for more.

    What was read is kept until `forget` to be sent again, while `kept` has room for it. Where the
    body is a form, all of this is about the bytes of its file, which is whole when the form is.
    """

    def __init__(self, receive: Receive, max_bytes: int, kept: KeptBytes) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._budget = kept
        self._taken = 0  # of the budget
        self._chunks: deque[bytes] = deque()
        self._gone = 0  # chunks before those in `_chunks`
        self._keeps = True
        self._end = asyncio.Event()
        self._hash = hashlib.sha256()
        self._whole = False
        self._ended_at: float | None = None
        self._media_type = ""
        self._form: FileForm | None = None
        self._malformed: MalformedFormError | None = None
        self.received = 0

    def declare(self, media_type: str, form: FileForm | None) -> None:
        """Say what the body is, before anything is read; a form if `form` is to take it."""
        self._media_type, self._form = media_type, form

    @property
    def is_form(self) -> bool:
        """True if the body is a form with the file in it."""
        return self._form is not None

    @property
    def media_type(self) -> str:
        """The declared media type; empty if a form gives none, or none has been read yet."""
        return self._media_type or (self._form.media_type if self._form is not None else "")

    @property
    def name(self) -> str | None:
        """The name of the file's part in a form, once it was read."""
        return self._form.name if self._form is not None else None

    @property
    def ended(self) -> bool:
        """True if there is no more to come."""
        return self._end.is_set()

    @property
    def sha256(self) -> bytes | None:
        """The hash of the body; None until all of it came."""
        return self._hash.digest() if self._whole else None

    @property
    def ended_at(self) -> float | None:
        """The time.monotonic() of the body's end; None until all of it came."""
        return self._ended_at

    @property
    def is_kept(self) -> bool:
        """True if all that was read is still there, so that iterating begins at the beginning."""
        return self._gone == 0

    async def gather(self, most: int, seconds: float) -> bool:
        """Waits for the first bytes, then a little longer, so that a small body is there whole.

        Reads on for at most `seconds`, up to `most` bytes. False if there is no body. What was read
        stays part of what iterating yields. Of a form, its headers are read then. Raises as
        `__aiter__`.
        """
        first = await self._next()
        self._hold(first)
        if not self.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not self.ended and self.received < most:
                        self._hold(await self._next())
        return bool(first)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the body from its beginning; once only if it is not kept.

        Several may iterate, but only one of them before the body has ended. Raises
        UploadTooLargeError, MalformedFormError and ClientGoneError.
        """
        place = 0
        while True:
            if place < self._gone:
                raise RuntimeError("this part of the body is gone")
            if place == self._gone + len(self._chunks):
                chunk = await self._next()
                if not chunk:
                    return
                self._hold(chunk)
            chunk = self._chunks[place - self._gone]
            place += 1
            while not self._keeps and self._gone < place:
                self._chunks.popleft()
                self._gone += 1
            yield chunk

    def forget(self) -> None:
        """Gives up what was kept: nobody will ask for it any more."""
        self._stop_keeping()
        self._gone += len(self._chunks)
        self._chunks.clear()

    async def read_rest(self) -> None:
        """Reads to the end, for the hash. Raises as `__aiter__`."""
        while await self._next():
            pass

    def _hold(self, chunk: bytes) -> None:
        """Has a chunk for who iterates, and for later if there is room."""
        if not chunk:  # the end
            return
        self._chunks.append(chunk)
        if self._keeps and self._budget.take(len(chunk), self._taken):
            self._taken += len(chunk)
        else:
            self._stop_keeping()

    def _stop_keeping(self) -> None:
        self._keeps = False
        self._budget.give_back(self._taken)
        self._taken = 0

    async def _next(self) -> bytes:
        """The next bytes; empty at the end of the body."""
        # Who reads on after an error must not take what came before it for the whole.
        if self._malformed is not None:
            raise self._malformed
        while not self.ended:
            chunk = await self._receive_some()
            if self.received > self._max_bytes:
                raise UploadTooLargeError
            if chunk:
                return chunk
        if self.received > self._max_bytes:
            raise UploadTooLargeError
        if not self._whole:
            raise ClientGoneError
        return b""

    async def _receive_some(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._end.set()
            raise ClientGoneError
        if not message.get("more_body", False):
            self._end.set()
        chunk: bytes = self._of_file(message.get("body", b""))
        self.received += len(chunk)
        if self.received <= self._max_bytes and self._malformed is None:
            self._hash.update(chunk)
            if self.ended:
                self._whole, self._ended_at = True, time.monotonic()
        return chunk

    def _of_file(self, data: bytes) -> bytes:
        """The bytes of the file in the next ones of the body; none after a malformed form."""
        if self._form is None:
            return data
        if self._malformed is not None:
            return b""
        try:
            data = self._form.feed(data)
            if self.ended:
                self._form.finish()
        except MalformedFormError as error:
            self._malformed = error
            raise
        return data

    async def wait_for_disconnect(self) -> None:
        """Returns when the client hangs up after it sent the whole body."""
        await self._end.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def discard_rest(self, seconds: float) -> None:
        """Reads what is still to come for at most `seconds`, over the limit too; for its hash.

        An answer that overtakes the body is lost to the client if the connection is closed while
        it is still sending (RFC 9112, section 9.6).
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.ended:
                    with contextlib.suppress(MalformedFormError):
                        await self._receive_some()
        except (TimeoutError, ClientGoneError):
            return
