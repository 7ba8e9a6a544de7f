"""The client of the rehearsal retries nothing, and notes every end for what it is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Sequence

import h11

from benchmarks.rehearsal.history import Answered, Failed, History, Sent
from benchmarks.rehearsal.pictures import Pictures, drawings
from benchmarks.rehearsal.uploads import Uploader, uploader

DECISION = {"decision": "accept", "cause": "policy", "rule": None, "id": "one"}


class ScriptedGateway:
    """Answers each upload with the next status and body; None closes the connection instead."""

    def __init__(self, script: Sequence[tuple[int, bytes] | None], *, closes: bool) -> None:
        self._script = iter(script)
        self._closes = closes
        self.connections = 0
        self.bodies: list[bytes] = []
        self.headers: list[dict[bytes, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                self.headers.append(dict(event.headers))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.bodies.append(body)
                body = b""
                answer = next(self._script)
                if answer is None:
                    break
                self._answer(connection, writer, *answer)
                if self._closes:
                    break
                connection.start_next_cycle()
            else:
                break
        writer.close()

    def _answer(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, status: int, body: bytes
    ) -> None:
        headers = [("Content-Length", str(len(body)))]
        headers += [("Connection", "close")] if self._closes else []
        response = h11.Response(status_code=status, headers=headers)
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")


@contextlib.asynccontextmanager
async def playing(
    *script: tuple[int, bytes] | None, closes: bool = False
) -> AsyncIterator[tuple[Uploader, ScriptedGateway, History]]:
    gateway, history = ScriptedGateway(script, closes=closes), History()
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, uploader(f"{host}:{port}", Pictures(drawings(2)), history) as client:
        yield client, gateway, history


def answer(name: str) -> tuple[int, bytes]:
    return 200, json.dumps({**DECISION, "id": name}).encode()


async def test_uploads_come_chunked_over_one_connection_and_are_all_different() -> None:
    async with playing(*(answer(str(number)) for number in range(4))) as (client, gateway, history):
        ends = [await client.post() for _ in range(4)]
    assert [end.id for end in ends if isinstance(end, Answered)] == ["0", "1", "2", "3"]
    assert gateway.connections == 1
    sent = [event for event in history.events if isinstance(event, Sent)]
    assert [one.sha256 for one in sent] == [hashlib.sha256(b).digest() for b in gateway.bodies]
    assert len({one.sha256 for one in sent}) == 4
    assert [one.picture for one in sent] == [0, 1, 0, 1]
    for headers in gateway.headers:
        assert headers[b"transfer-encoding"] == b"chunked"
        assert b"content-length" not in headers


async def test_a_connection_that_breaks_is_a_failed_upload_and_not_tried_again() -> None:
    async with playing(answer("0"), None, answer("2")) as (client, gateway, _):
        ends = [await client.post() for _ in range(3)]
    assert isinstance(ends[1], Failed)
    assert ends[1].how == "connection"
    assert isinstance(ends[2], Answered)
    assert (gateway.connections, len(gateway.bodies)) == (2, 3)


async def test_a_connection_that_the_answer_ends_is_not_used_again() -> None:
    async with playing(answer("0"), answer("1"), closes=True) as (client, gateway, _):
        ends = [await client.post() for _ in range(2)]
    assert all(isinstance(end, Answered) for end in ends)
    assert gateway.connections == 2


async def test_what_is_no_decision_has_no_id() -> None:
    async with playing((502, b"<html>"), (413, b'{"error": "too_large"}')) as (client, _, _):
        ends = [await client.post() for _ in range(2)]
    assert [(end.status, end.id) for end in ends if isinstance(end, Answered)] == [
        (502, ""),
        (413, ""),
    ]


async def test_nobody_there_is_a_failed_upload() -> None:
    history = History()
    async with uploader("127.0.0.1:1", Pictures(drawings(1)), history) as client:
        end = await client.post()
    assert isinstance(end, Failed)
    assert end.how == "connection"
    assert [type(event) for event in history.events] == [Sent, Failed]
