"""Posts files over HTTP/1.1 as pict-rs does: chunked, without Content-Length, connections kept.

Written by hand on asyncio's streams: a client library would take a good part of two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from benchmarks.serving.grpc_calls import CALL_SECONDS, WrongAnswerError
from benchmarks.serving.measuring import Call

SCAN = "/api/v1/scan/IPADDR"
_CHUNK_BYTES = 16 * 1024
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def posts(
    target: str, path: str, files: Sequence[bytes], expected: bytes, *, chunked: bool = True
) -> AsyncIterator[Call]:
    """One POST for each file; a good answer is a 200 or 406 with `expected` in its body."""
    host, _, port = target.partition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {target}\r\nContent-Type: image/jpeg\r\n".encode()
    requests = [_request(head, data, chunked) for data in files]
    idle: list[_Connection] = []
    opened: list[_Connection] = []

    async def call(number: int) -> None:
        if not idle:
            opened.append(await asyncio.open_connection(host, int(port)))
            idle.append(opened[-1])
        reader, writer = idle.pop()
        async with asyncio.timeout(CALL_SECONDS):
            writer.write(requests[number % len(requests)])
            await writer.drain()
            status, body = await _response(reader)
        if status not in (200, 406) or expected not in body:
            raise WrongAnswerError(f"HTTP status {status}: {body.decode()[:300]}")
        idle.append((reader, writer))

    try:
        yield call
    finally:
        for _, writer in opened:
            writer.close()


def _request(head: bytes, data: bytes, chunked: bool) -> bytes:
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n" % len(data) + data
    parts = [head, b"Transfer-Encoding: chunked\r\n\r\n"]
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        parts += [b"%x\r\n" % len(chunk), chunk, b"\r\n"]
    return b"".join([*parts, b"0\r\n\r\n"])


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = None
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is None:
        raise WrongAnswerError(f"an answer without Content-Length: {head.decode()[:300]}")
    return int(lines[0].split()[1]), await reader.readexactly(length)
