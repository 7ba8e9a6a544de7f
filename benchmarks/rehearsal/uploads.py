"""Posts files as pict-rs does, retries nothing, and notes what became of each.

HTTP/1.1, chunked, without Content-Length, over connections that are kept. Written by hand on
asyncio's streams: a client library would take a good part of two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from benchmarks.rehearsal.history import Answered, Failed, History, Sent
from benchmarks.rehearsal.pictures import MEDIA_TYPE, Pictures

ANSWER_SECONDS = 30.0  # pict-rs's patience, by default
_CHUNK_BYTES = 16 * 1024
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NoHttpError(Exception):
    """What came back is no answer that we understand."""


@dataclass(frozen=True)
class _Response:
    status: int
    keeps_connection: bool
    body: bytes


class Uploader:
    """A client of one gateway, or of the proxy before several."""

    def __init__(self, address: str, pictures: Pictures, history: History) -> None:
        self._address = address
        self._pictures = pictures
        self._history = history
        self._numbers = itertools.count()
        self._idle: list[_Connection] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._head = (
            f"POST /api/v1/scan/IPADDR HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Type: {MEDIA_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode()

    async def post(self, due: float | None = None) -> Answered | Failed:
        """One upload. `due` is when it should have begun, in seconds of time.monotonic()."""
        number, body = self._begin(due)
        end: Answered | Failed
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._exchange(body)
            end = _answered(number, response)
        except TimeoutError:
            end = Failed(number, "timeout", f"no answer in {ANSWER_SECONDS:g} s", time.monotonic())
        except (OSError, asyncio.IncompleteReadError, NoHttpError) as error:
            message = f"{type(error).__name__}: {error}"
            end = Failed(number, "connection", message, time.monotonic())
        self._history.add(end)
        return end

    async def hang_up(self) -> None:
        """Begins an upload and leaves in the middle of it."""
        number, body = self._begin(None)
        how, message = "hang-up", ""
        try:
            _, writer = await self._connect()
            writer.write(self._head + _chunked(body[: len(body) // 2])[: -len(_LAST)])
            await writer.drain()
            self._drop(writer)
        except OSError as error:
            how, message = "connection", str(error)
        self._history.add(Failed(number, how, message, time.monotonic()))

    def close(self) -> None:
        """Closes the connections."""
        for writer in tuple(self._open):
            self._drop(writer)

    def _begin(self, due: float | None) -> tuple[int, bytes]:
        number = next(self._numbers)
        picture, body = self._pictures.of(number)
        at = time.monotonic() if due is None else due
        self._history.add(Sent(number, picture, hashlib.sha256(body).digest(), at))
        return number, body

    async def _exchange(self, body: bytes) -> _Response:
        reader, writer = self._idle_connection() or await self._connect()
        kept = False
        try:
            writer.write(self._head + _chunked(body))
            await writer.drain()
            response = await _response(reader)
            kept = response.keeps_connection
        finally:
            if not kept:
                self._drop(writer)
        self._idle.extend([(reader, writer)] if kept else [])
        return response

    def _idle_connection(self) -> _Connection | None:
        """The one that was used last, as in most pools; those that were closed are forgotten."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or reader.exception() or writer.is_closing()):
                return reader, writer
            self._drop(writer)
        return None

    async def _connect(self) -> _Connection:
        host, _, port = self._address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self._open.add(writer)
        return reader, writer

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.close()


@contextlib.asynccontextmanager
async def uploader(address: str, pictures: Pictures, history: History) -> AsyncIterator[Uploader]:
    """An uploader whose connections end with the block."""
    client = Uploader(address, pictures, history)
    try:
        yield client
    finally:
        client.close()


_LAST = b"0\r\n\r\n"


def _chunked(body: bytes) -> bytes:
    parts = []
    for start in range(0, len(body), _CHUNK_BYTES):
        chunk = body[start : start + _CHUNK_BYTES]
        parts += [b"%x\r\n" % len(chunk), chunk, b"\r\n"]
    return b"".join([*parts, _LAST])


async def _response(reader: asyncio.StreamReader) -> _Response:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = {
        name.strip().lower(): value.strip().lower()
        for name, _, value in (line.partition(b":") for line in lines if line)
    }
    try:
        length, status = int(headers[b"content-length"]), int(first.split()[1])
    except (KeyError, ValueError, IndexError):
        raise NoHttpError(f"{head[:200]!r}") from None
    body = await reader.readexactly(length)
    return _Response(status, headers.get(b"connection") != b"close", body)


def _answered(number: int, response: _Response) -> Answered:
    try:
        content = json.loads(response.body)
        decision, cause, name = (str(content[key]) for key in ("decision", "cause", "id"))
    except (ValueError, KeyError, TypeError):
        decision = cause = name = ""
    return Answered(number, response.status, decision, cause, name, time.monotonic())
