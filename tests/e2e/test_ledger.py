"""Every upload that is answered is in the ledger once, whatever happens; its image never is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import resource
import secrets
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import h11
import pytest

from imagesafety.v1 import scoring_pb2
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import Service, fetch, gateway, off_loop
from tests.e2e.scripted_inference import Context, full, read_all, scores, scripted
from tests.e2e.test_pair import GOOD

Messages = AsyncIterator[scoring_pb2.ScoreImageRequest]
KILLS = 50


async def flag_some(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    """Rejects about half of the images."""
    await read_all(messages)
    return scores(*random.choice([(0.3, 0.3, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)]))


class Load:
    """Posts pictures that nobody has seen before, one after the other, and keeps the answers."""

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.answers: list[Answer] = []
        self.failures = 0
        self._answered = asyncio.Event()

    @contextlib.asynccontextmanager
    async def on(self, address: str) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._post(address)) for _ in range(self.clients)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def answered(self, more: int) -> None:
        """Waits for some more answers."""
        enough = len(self.answers) + more
        while len(self.answers) < enough:
            self._answered.clear()
            await self._answered.wait()

    async def _post(self, address: str) -> None:
        while True:
            try:
                self.answers.append(await post(address, GOOD + secrets.token_bytes(64)))
                self._answered.set()
            except (OSError, h11.ProtocolError):
                self.failures += 1
                await asyncio.sleep(0.01)

    @property
    def ids(self) -> list[str]:
        return [answer.body["id"] for answer in self.answers]


def rows(folder: Path) -> list[dict[str, object]]:
    """What is in the ledger's database."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM decisions ORDER BY seq")]


async def test_a_row_tells_what_was_answered_and_why(tmp_path: Path) -> None:
    async def red(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        answer = scores(0.0, 0.0, 0.0, 0.0)
        answer.scores.views.add(
            similarities=[0.3, 0.3, 0.0, 0.0],
            frame_index=7,
            region=scoring_pb2.Region(left=1, top=2, width=30, height=40),
        )
        answer.scores.width, answer.scores.height = 100, 200
        answer.scores.media_type = "image/png"
        answer.scores.frames = answer.scores.total_frames = 9
        answer.scores.stages.decode.FromMilliseconds(5)
        return answer

    async with (
        scripted(red) as (target, service),
        off_loop(gateway(target, data_folder=tmp_path)) as here,
    ):
        rejected = await post(here.address, GOOD)
        service.behaviour = full
        await post(here.address, GOOD + b"x")
        assert (await post(here.address, GOOD, "text/plain")).status == 415
    first, second = rows(tmp_path)
    assert first["id"] == rejected.body["id"]
    wanted = {
        "client": "IPADDR",
        "size": len(GOOD),
        "media_type": "image/png",
        "width": 100,
        "height": 200,
        "total_frames": 9,
        "decision": "reject",
        "cause": "policy",
        "rule": "red-and-triangle",
        "deciding_view": 1,
        "model": "demo",
        "decode_ms": 5.0,
        "unscanned": 0,
    }
    assert {name: first[name] for name in wanted} == wanted
    assert abs(float(str(first["at"])) / 1e6 - time.time()) < 300
    assert (second["cause"], second["unscanned"], second["views"]) == ("overload", 1, None)


@pytest.mark.timeout(900)
async def test_no_answered_upload_is_missing_or_doubled_when_the_gateway_is_killed(
    tmp_path: Path,
) -> None:
    load = Load(clients=6)
    async with scripted(flag_some) as (target, _):
        for _ in range(KILLS):
            async with (
                off_loop(gateway(target, data_folder=tmp_path)) as here,
                load.on(here.address),
            ):
                await load.answered(random.randint(1, 60))
                os.kill(here.process.pid, signal.SIGKILL)
                await asyncio.to_thread(here.process.wait)
        async with off_loop(gateway(target, data_folder=tmp_path)):
            pass  # takes over what a spool may hold
    assert len(load.ids) > KILLS
    recorded = Counter(str(row["id"]) for row in rows(tmp_path))
    assert [one for one in load.ids if recorded[one] != 1] == []


async def test_uploads_go_on_while_the_database_is_locked(tmp_path: Path) -> None:
    load = Load(clients=4)
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, data_folder=tmp_path)) as here,
        load.on(here.address),
    ):
        await load.answered(20)
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
            other.isolation_level = None
            other.execute("BEGIN EXCLUSIVE")
            await load.answered(100)
            status, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
            other.execute("ROLLBACK")
        await load.answered(100)
    assert (status, json.loads(body)["ready"]) == (200, True)
    assert json.loads(body)["components"]["ledger"] != "ok"
    assert {answer.body["cause"] for answer in load.answers} == {"policy"}
    assert load.failures == 0
    recorded = Counter(str(row["id"]) for row in rows(tmp_path))
    assert [one for one in load.ids if recorded[one] != 1] == []


async def test_uploads_are_answered_when_the_disk_is_full(tmp_path: Path) -> None:
    """For spool and database together: a limit on the size of files stands for the full disk."""
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, data_folder=tmp_path)) as here,
    ):
        limit(here, largest(tmp_path))
        load = Load(clients=4)
        trouble = ""
        async with load.on(here.address):
            while "spool" not in trouble:
                await load.answered(10)
                _, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
                trouble = json.loads(body)["components"]["ledger"]
            await load.answered(50)
            _, metrics = await asyncio.to_thread(fetch, f"http://{here.admin}/metrics")
            limit(here, -1)
            while trouble != "ok":
                await load.answered(10)
                _, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
                trouble = json.loads(body)["components"]["ledger"]
        assert load.failures == 0
        assert 'imagesafety_ledger_rows_total{stored="nowhere"}' in metrics


def largest(folder: Path) -> int:
    """The size of the largest file in a folder."""
    return max(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def limit(service: Service, size: int) -> None:
    """Limits the size of files that a process may write from now on; -1: not at all."""
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, -1))


async def test_a_body_that_comes_whole_after_its_answer_is_to_be_rescanned(tmp_path: Path) -> None:
    pict_rs = ("--pict-rs", "http://127.0.0.1:9", "--pict-rs-api-key", "key of nobody's")
    head = "POST /api/v1/scan/IPADDR HTTP/1.1\r\nHost: g\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(GOOD)}\r\n\r\n"
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, "--time-budget", "1", *pict_rs, data_folder=tmp_path)) as here,
    ):
        reader, writer = await asyncio.open_connection(*here.address.split(":"))
        writer.write(head.encode() + GOOD[:-1])
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 30)
        assert b'"cause":"deadline"' in answer
        [before] = rows(tmp_path)
        assert (before["sha256"], before["rescan"], before["unscanned"]) == (None, None, 1)
        writer.write(GOOD[-1:])
        await asyncio.wait_for(reader.read(), 30)  # the end, when the gateway has done its part
        writer.close()
    [row] = rows(tmp_path)
    wanted = {"sha256": hashlib.sha256(GOOD).digest(), "size": len(GOOD), "rescan": "pending"}
    assert {name: row[name] for name in wanted} == wanted


def written_since(start: float, folders: list[Path]) -> Iterator[Path]:
    """The files below some folders that were written after a time."""
    for folder in folders:
        for root, _, names in os.walk(folder, onerror=None):
            for name in names:
                path = Path(root, name)
                with contextlib.suppress(OSError):
                    if path.is_file() and path.stat().st_mtime >= start:
                        yield path


def open_files(pid: int) -> list[Path]:
    """The files that a process has open."""
    opened = [path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir()]
    return [path for path in opened if path.is_file()]


@pytest.mark.parametrize("behaviour", [flag_some, full])
async def test_no_byte_of_an_image_is_ever_written(
    behaviour: Callable[[Messages, Context], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("home", "tmp", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    marker = secrets.token_bytes(48)
    forms = (marker, marker.hex().encode(), base64.b64encode(marker))
    start = time.time() - 1
    async with (
        scripted(behaviour) as (target, _),  # type: ignore[arg-type]
        off_loop(gateway(target, data_folder=tmp_path / "data")) as here,
    ):
        for size in (0, 10_000, 1_000_000):
            await post(here.address, GOOD + bytes(size) + marker * 50)
        folders = [tmp_path, Path(), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
        written = {*written_since(start, folders), *open_files(here.process.pid)}
        assert tmp_path / "data" / "ledger.db" in written
        for path in written:
            with contextlib.suppress(OSError):
                content = path.read_bytes()
                assert not any(form in content for form in forms), path
