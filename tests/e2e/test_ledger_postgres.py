"""The ledger on a real PostgreSQL server that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy

from tests.e2e.pict_rs import post
from tests.e2e.processes import Service, deny, fetch, gateway, off_loop
from tests.e2e.scripted_inference import scripted
from tests.e2e.test_ledger import Load, flag_some
from tests.e2e.test_pair import GOOD
from tests.gateway.postgres import Postgres, running_postgres


@pytest.fixture
async def server() -> AsyncIterator[Postgres]:
    """A server of our own, to be stopped."""
    context = running_postgres()
    yield await asyncio.to_thread(context.__enter__)
    await asyncio.to_thread(context.__exit__, None, None, None)


def recorded(url: str) -> Counter[str]:
    """How often each decision is in the ledger."""
    engine = sqlalchemy.create_engine(url)
    with contextlib.closing(engine.connect()) as connection:
        found = Counter(connection.scalars(sqlalchemy.text("SELECT id FROM decisions")))
    engine.dispose()
    return found


async def state_of_ledger(here: Service) -> str:
    _, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
    return str(json.loads(body)["components"]["ledger"])


async def until_ledger(here: Service, load: Load, *, ok: bool) -> None:
    """Waits, under load, until the ledger is as it should be."""
    async with asyncio.timeout(60):
        while (await state_of_ledger(here) == "ok") is not ok:
            await load.answered(5)


async def test_postgresql_is_stopped_and_comes_back_under_load(
    server: Postgres, tmp_path: Path
) -> None:
    url, load = server.new_database(), Load(clients=4)
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, "--database", url, data_folder=tmp_path)) as here,
        load.on(here.address),
    ):
        await load.answered(50)
        for away, back in ((server.stop, server.start), (server.kill, server.start)):
            await asyncio.to_thread(away)
            await until_ledger(here, load, ok=False)
            await load.answered(50)
            await asyncio.to_thread(back)
            await until_ledger(here, load, ok=True)
        server.pause()
        await until_ledger(here, load, ok=False)
        await load.answered(50)
        server.resume()
        await until_ledger(here, load, ok=True)
    assert load.failures == 0
    assert {answer.body["cause"] for answer in load.answers} == {"policy"}
    rows = await asyncio.to_thread(recorded, url)
    assert [one for one in load.ids if rows[one] != 1] == []
    assert rows.total() == len(rows)


async def test_a_database_that_hangs_keeps_no_gateway_from_ending(
    server: Postgres, tmp_path: Path
) -> None:
    url, load = server.new_database(), Load(clients=2)
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, "--database", url, data_folder=tmp_path)) as here,
    ):
        async with load.on(here.address):
            await load.answered(10)
            server.pause()
            await load.answered(50)
        assert await asyncio.to_thread(here.stop, 20) == 0
        server.resume()
        async with (
            off_loop(gateway(target, "--database", url, data_folder=tmp_path)) as again,
            load.on(again.address),
        ):
            await until_ledger(again, load, ok=True)
    rows = await asyncio.to_thread(recorded, url)
    assert [one for one in load.ids if rows[one] != 1] == []


async def test_two_gateways_on_one_database(server: Postgres, tmp_path: Path) -> None:
    """One of them is killed and comes back; what one is told, the other knows."""
    url, loads = server.new_database(), (Load(clients=3), Load(clients=3))

    def start(target: str, name: str) -> contextlib.AbstractAsyncContextManager[Service]:
        return off_loop(gateway(target, "--database", url, data_folder=tmp_path / name))

    async with scripted(flag_some) as (target, _), start(target, "one") as one:
        async with start(target, "two") as two, loads[0].on(one.address):
            async with loads[1].on(two.address):
                await loads[1].answered(50)
                os.kill(two.process.pid, signal.SIGKILL)
                await asyncio.to_thread(two.process.wait)
            await loads[0].answered(50)
        async with start(target, "two") as two:
            accepted = await post(two.address, GOOD)
            await deny(one.admin, sha256=await sha256_of(url, accepted.body["id"]))
            async with asyncio.timeout(30):
                while (await post(two.address, GOOD)).body["cause"] != "override":
                    pass
    rows = await asyncio.to_thread(recorded, url)
    assert [key for load in loads for key in load.ids if rows[key] != 1] == []


async def sha256_of(url: str, decision: str) -> str:
    """The hash in a row of the ledger."""

    def read() -> str:
        engine = sqlalchemy.create_engine(url)
        with contextlib.closing(engine.connect()) as connection:
            query = sqlalchemy.text("SELECT sha256 FROM decisions WHERE id = :id")
            found: bytes = connection.scalar(query, {"id": decision})
        engine.dispose()
        return bytes(found).hex()

    return await asyncio.to_thread(read)
