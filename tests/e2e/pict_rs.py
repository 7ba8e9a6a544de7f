"""Posts files as pict-rs does: HTTP/1.1, chunked, no Content-Length, nothing else to know it by."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import h11

CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


async def post(
    address: str,
    data: bytes | AsyncIterator[bytes],
    content_type: str | None = "image/png",
    path: str = "/api/v1/scan/IPADDR",
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Posts one file and returns the answer, which may come before the body is sent."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = h11.Connection(h11.CLIENT)
    every = [("Host", address), ("User-Agent", "pict-rs v0.5.0-main"), *headers]
    every += [("Transfer-Encoding", "chunked")]
    if content_type is not None:
        every.append(("Content-Type", content_type))
    writer.write(connection.send(h11.Request(method="POST", target=path, headers=every)) or b"")
    body = pieces(data) if isinstance(data, bytes) else data
    sending = asyncio.create_task(_send(connection, writer, body))
    try:
        # Not wait_for: in Python 3.11 it may swallow a cancellation.
        async with asyncio.timeout(60):
            return await _receive(connection, reader)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, body: AsyncIterator[bytes]
) -> None:
    async for piece in body:
        writer.write(connection.send(h11.Data(data=piece)) or b"")
        await writer.drain()
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    status, content = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, json.loads(content))
        else:
            raise ConnectionError(f"no whole answer: {event!r}")
