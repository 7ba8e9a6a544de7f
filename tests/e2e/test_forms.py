"""Uploads as multipart forms, over raw sockets: as pict-rs 0.6 sends them, and broken ones."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from imagesafety.v1 import scoring_pb2
from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import pieces, post
from tests.e2e.processes import Service, deny, gateway, off_loop, resident_bytes
from tests.e2e.scripted_inference import (
    Behaviour,
    Context,
    full,
    read_all,
    refuse,
    scores,
    scripted,
)
from tests.e2e.test_pair import BAD, GOOD
from tests.forms import BOUNDARY, CONTENT_TYPES, DISPOSITION, NAME, broken_forms, form

Messages = AsyncIterator[scoring_pb2.ScoreImageRequest]
RECORDED = Path(__file__).parent / "recorded"
PATH = b"/api/v1/scan/IPADDR"
MIB = 1024 * 1024
LARGE = GOOD + bytes(MIB)  # so that a call begins before the body has ended
FORM = CONTENT_TYPES[1]
HARMLESS = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Raw:
    """An answer, and whether the connection goes on."""

    status: int
    body: dict[str, Any]
    closes: bool


class Connection:
    """One connection, below any library that would repair what is sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, address: str) -> Connection:
        host, port = address.rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def begin(self, content_types: Iterable[str], user_agent: str = "a test") -> None:
        """Sends the head of a chunked request."""
        lines = [f"content-type: {value}" for value in content_types]
        lines += ["host: here", f"user-agent: {user_agent}", "transfer-encoding: chunked"]
        head = "".join(f"{line}\r\n" for line in lines).encode()
        await self.send(b"POST " + PATH + b" HTTP/1.1\r\n" + head + b"\r\n")

    async def chunk(self, data: bytes) -> None:
        """Sends a chunk; an empty one ends the body."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def answer(self) -> Raw:
        async with asyncio.timeout(60):
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            content = await self._reader.readexactly(int(headers["content-length"]))
        closes = headers.get("connection") == "close"
        return Raw(int(first.split()[1]), json.loads(content), closes)

    async def upload(self, content_types: Iterable[str], body: bytes, step: int = 65536) -> Raw:
        """Sends a whole request while it reads the answer, which may come before the end."""

        async def sending() -> None:
            await self.begin(content_types)
            for start in range(0, len(body), step):
                await self.chunk(body[start : start + step])
            await self.chunk(b"")

        task = asyncio.create_task(sending())
        try:
            return await self.answer()
        finally:
            await asyncio.gather(task, return_exceptions=True)  # the connection may be closed

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


async def upload(address: str, content_types: Iterable[str], body: bytes, step: int = 65536) -> Raw:
    connection = await Connection.to(address)
    try:
        return await connection.upload(content_types, body, step)
    finally:
        await connection.close()


async def harmless(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    await read_all(messages)
    return scores(*HARMLESS)


def rows(folder: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(folder / "ledger.db") as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("select * from decisions order by seq")]


def recorded(version: str) -> bytes:
    """A request of the real pict-rs, to be sent to the gateway's route."""
    request = (RECORDED / f"pict-rs-{version}-validation.http").read_bytes()
    return request.replace(b"POST /x ", b"POST " + PATH + b" ", 1)


def with_file(request: bytes, file: bytes) -> bytes:
    """The same request with another file in it."""
    start = request.index(b"\x89PNG")
    end = request.index(b"IEND") + 8
    size = b"%X\r\n" % (end - start)
    assert request[:start].endswith(b"\r\n" + size)
    return request[:start].removesuffix(size) + b"%X\r\n" % len(file) + file + request[end:]


@pytest.mark.parametrize(
    ("version", "user_agent", "reference"),
    [("0.5.17", "pict-rs v0.5.0-main", None), ("0.6.0-rc.6", "pict-rs 0.6.0-rc.6", NAME)],
)
async def test_recorded_requests_of_pict_rs(
    pair: Pair, tmp_path: Path, version: str, user_agent: str, reference: str | None
) -> None:
    request = recorded(version)
    start, end = request.index(b"\x89PNG"), request.index(b"IEND") + 8
    files = [request[start:end], BAD, GOOD]
    async with off_loop(gateway(pair.inference, data_folder=tmp_path)) as here:
        connection = await Connection.to(here.address)
        answers = []
        for file in files:
            await connection.send(with_file(request, file))
            answers.append(await connection.answer())
        await connection.close()
        assert [answer.status for answer in answers] == [406, 406, 200]
        assert [answer.body["rule"] for answer in answers] == ["red-and-triangle"] * 2 + [None]
        assert not any(answer.closes for answer in answers)
        for row, file in zip(rows(tmp_path), files, strict=True):
            assert (row["sha256"], row["size"]) == (hashlib.sha256(file).digest(), len(file))
            assert (row["user_agent"], row["reference"]) == (user_agent, reference)
            assert row["media_type"] == "image/png"


async def test_each_broken_form_is_refused_and_nothing_else_is_lost(tmp_path: Path) -> None:
    good = form(GOOD)
    async with (
        scripted(harmless) as (target, _),
        off_loop(gateway(target, "--repeats", "false", data_folder=tmp_path)) as here,
    ):
        connection = await Connection.to(here.address)
        cases = broken_forms(GOOD)
        for what, (content_types, body) in cases.items():
            answer = await connection.upload(content_types, body)
            assert (answer.status, answer.body["error"]) == (400, "malformed_form"), what
            assert answer.body["message"], what
            if answer.closes:
                await connection.close()
                connection = await Connection.to(here.address)
            after = await connection.upload(CONTENT_TYPES, good)
            assert (after.status, after.body["cause"], after.closes) == (200, "policy", False), what
        empty = await connection.upload(CONTENT_TYPES, form(b""))
        assert (empty.status, empty.body["error"]) == (400, "empty_body")
        await connection.close()
        assert len(cases) >= 30
        kept = rows(tmp_path)
        assert {(row["sha256"], row["reference"]) for row in kept} == {
            (hashlib.sha256(GOOD).digest(), NAME)
        }
        assert len(kept) == len(cases)
        assert "Traceback" not in here.output()
        assert "python_multipart" not in here.output()


async def slow(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    """A call that is cancelled looks at first like one whose image is whole."""
    await read_all(messages)
    await asyncio.sleep(0.2)
    return scores(*HARMLESS)


async def early(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    """Answers before the file has come."""
    return scores(*HARMLESS)


async def undecodable(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    """Gives up before the file has come, as on one that is not a picture."""
    await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_TYPE")


@pytest.mark.parametrize("behaviour", [slow, early, full, undecodable])
@pytest.mark.parametrize("hedged", [False, True])
async def test_a_form_that_breaks_when_all_its_file_was_sent(
    behaviour: Behaviour, hedged: bool, tmp_path: Path
) -> None:
    flags = ["--warm-up-seconds", "0", "--time-budget", "4"]
    if hedged:
        flags += ["--hedge-after", "0.01"]
    async with (
        scripted(behaviour) as (target, service),
        off_loop(gateway(target, *flags, data_folder=tmp_path)) as here,
    ):
        good = form(LARGE)
        for rest in (b"", b"\r\n", good[-20:-10], b"--x\r\n", b"\r\n--" + BOUNDARY.encode()):
            service.began.clear()
            service.cancelled.clear()
            connection = await Connection.to(here.address)
            await connection.begin(CONTENT_TYPES)
            async for piece in pieces(good[: good.index(LARGE) + len(LARGE)]):
                await connection.chunk(piece)
            await asyncio.wait_for(service.began.wait(), 10)
            for data in (rest, b"") if rest else (b"",):
                await connection.chunk(data)
            answer = await connection.answer()
            assert (answer.status, answer.body["error"]) == (400, "malformed_form")
            if behaviour is slow:
                await asyncio.wait_for(service.cancelled.wait(), 10)
            await connection.close()
        assert rows(tmp_path) == []
        answer = await upload(here.address, CONTENT_TYPES, good)
        assert answer.status == (406 if behaviour is undecodable else 200)
        [row] = rows(tmp_path)
        assert (row["sha256"], row["size"]) == (hashlib.sha256(LARGE).digest(), len(LARGE))


async def test_a_form_without_end_gets_the_answer_for_the_deadline(tmp_path: Path) -> None:
    async with (
        scripted(harmless) as (target, _),
        off_loop(gateway(target, "--time-budget", "1", data_folder=tmp_path)) as here,
    ):
        connection = await Connection.to(here.address)
        await connection.begin(CONTENT_TYPES, "pict-rs 0.6.0-rc.6")
        await connection.chunk(form(GOOD).removesuffix(b"--\r\n"))
        answer = await connection.answer()
        await connection.close()
        assert (answer.status, answer.body["cause"], answer.closes) == (200, "deadline", True)
        [row] = rows(tmp_path)
        assert (row["sha256"], row["unscanned"], row["reference"]) == (None, 1, NAME)


@pytest.mark.parametrize("data", [GOOD, LARGE])
async def test_a_file_is_the_same_in_both_forms(data: bytes, tmp_path: Path) -> None:
    async with (
        scripted(harmless) as (target, _),
        off_loop(gateway(target, data_folder=tmp_path)) as here,
    ):
        assert (await upload(here.address, CONTENT_TYPES, form(data))).body["cause"] == "policy"
        assert (await upload(here.address, CONTENT_TYPES, form(data))).body["cause"] == "repeat"
        assert (await post(here.address, data)).body["cause"] == "repeat"
        assert (await post(here.address, data + b"x")).body["cause"] == "policy"
        again = await upload(here.address, CONTENT_TYPES, form(data + b"x"))
        assert again.body["cause"] == "repeat"
        await deny(here.admin, sha256=hashlib.sha256(data).hexdigest())
        denied = await upload(here.address, CONTENT_TYPES, form(data))
        assert (denied.status, denied.body["cause"]) == (406, "override")


async def test_bytes_one_by_one_are_an_upload_too(pair: Pair) -> None:
    assert (await upload(pair.gateway, CONTENT_TYPES, form(BAD), step=1)).status == 406


PNG = "Content-Type: image/png"


@pytest.mark.parametrize(
    ("content_types", "line", "media_type"),
    [
        (CONTENT_TYPES[::-1], "X: a", "image/png"),
        ((", ".join(CONTENT_TYPES),), "X: a", "image/png"),
        (CONTENT_TYPES, "Content-Type: image/gif", "image/png"),  # the request's counts
        ((FORM,), PNG, "image/png"),
        (("application/octet-stream", FORM), PNG, "image/png"),
        ((FORM,), "X: a", ""),
        ((FORM,), "Content-Type: application/octet-stream", ""),
    ],
)
async def test_where_the_type_of_the_file_may_be(
    pair: Pair, content_types: tuple[str, ...], line: str, media_type: str, tmp_path: Path
) -> None:
    async with off_loop(gateway(pair.inference, data_folder=tmp_path)) as here:
        answer = await upload(here.address, content_types, form(BAD, DISPOSITION, line))
        assert (answer.status, answer.body["cause"]) == (406, "policy")
        [row] = rows(tmp_path)
        assert (row["media_type"], row["found_type"]) == (media_type, "image/png")


@pytest.mark.parametrize(
    ("content_types", "line"),
    [
        (("text/plain", FORM), "X: a"),
        (("multipart/mixed", FORM), PNG),
        ((f"multipart/mixed; boundary={BOUNDARY}",), PNG),
        ((FORM,), "Content-Type: text/plain"),
        ((FORM,), "Content-Type: image/svg+xml"),
    ],
)
async def test_types_that_are_not_scanned(
    pair: Pair, content_types: tuple[str, ...], line: str
) -> None:
    answer = await upload(pair.gateway, content_types, form(BAD, DISPOSITION, line))
    assert (answer.status, answer.body["error"]) == (415, "unsupported_media_type")


async def test_a_type_that_is_not_scanned_is_no_upload_that_came_too_late(tmp_path: Path) -> None:
    async with (
        scripted(harmless) as (target, _),
        off_loop(gateway(target, "--time-budget", "1", data_folder=tmp_path)) as here,
    ):
        for declared in ("text/plain", f"image/{'x' * 4000}", "image/\x9bm"):
            head, _, _ = form(GOOD, DISPOSITION, f"Content-Type: {declared}").partition(GOOD)
            connection = await Connection.to(here.address)
            await connection.begin((FORM,))
            await connection.chunk(head)
            answer = await connection.answer()
            await connection.close()
            assert (answer.status, answer.body["error"]) == (415, "unsupported_media_type")
            assert len(answer.body["message"]) < 300
            assert answer.body["message"].isprintable()
        assert rows(tmp_path) == []


async def test_a_form_without_types_is_judged_by_its_bytes(pair: Pair) -> None:
    answer = await upload(pair.gateway, (FORM,), form(b"this is no picture"))
    assert (answer.status, answer.body["cause"]) == (406, "undecodable")


async def test_a_stranger_is_refused_before_anything_is_read(pair: Pair) -> None:
    request = recorded("0.6.0-rc.6").replace(PATH, b"/api/v1/scan/a-wrong-secret-of-28-chars", 1)
    connection = await Connection.to(pair.gateway)
    await connection.send(request)
    answer = await connection.answer()
    await connection.close()
    assert (answer.status, answer.body["error"]) == (401, "not_allowed")


async def test_the_limit_is_for_the_file(tmp_path: Path) -> None:
    flags = ("--max-upload-bytes", str(MIB), "--retry-bytes", "0")
    async with scripted(harmless) as (target, _), off_loop(gateway(target, *flags)) as here:
        for size, status in ((MIB, 200), (MIB + 1, 413), (8 * MIB, 413)):
            answer = await upload(here.address, CONTENT_TYPES, form(bytes(size)))
            assert answer.status == status


async def test_the_memory_stays_flat_while_a_form_of_40_mb_comes() -> None:
    file = GOOD + bytes(40 * MIB - len(GOOD))

    async def most_during(here: Service) -> int:
        most = 0
        connection = await Connection.to(here.address)
        await connection.begin(CONTENT_TYPES)
        async for piece in pieces(form(file)):
            await connection.chunk(piece)
            most = max(most, resident_bytes(here.process.pid))
        await connection.chunk(b"")
        assert (await connection.answer()).status == 200
        await connection.close()
        return most

    async with (
        scripted(harmless) as (target, _),
        off_loop(gateway(target, "--retry-bytes", "0", "--repeats", "false")) as here,
    ):
        assert (await upload(here.address, CONTENT_TYPES, form(LARGE))).status == 200
        before = resident_bytes(here.process.pid)
        most = max([await most_during(here) for _ in range(3)])
    assert most - before < 8 * MIB
