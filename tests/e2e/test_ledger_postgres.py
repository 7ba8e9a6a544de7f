"""The ledger on a real PostgreSQL server that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from imagesafety.policy_file import find_policy
from tests.e2e.pict_rs import post
from tests.e2e.processes import Service, deny, fetch, free_port, gateway, off_loop
from tests.e2e.scripted_inference import scripted
from tests.e2e.test_ledger import Load, flag_some
from tests.e2e.test_pair import GOOD
from tests.gateway.postgres import Postgres, postgres, running_postgres

__all__ = ["postgres"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def server() -> AsyncIterator[Postgres]:
    """A server of our own, to be stopped."""
    context = running_postgres()
    yield await asyncio.to_thread(context.__enter__)
    await asyncio.to_thread(context.__exit__, None, None, None)


def recorded(url: str) -> Counter[str]:
    """The number of times that each decision is in the ledger."""
    engine = sqlalchemy.create_engine(url, connect_args={"client_encoding": "utf8"})
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


@pytest.fixture
async def sql_ascii() -> AsyncIterator[Postgres]:
    """A server as initdb makes it in a container that has no locale."""
    context = running_postgres(encoding="SQL_ASCII")
    yield await asyncio.to_thread(context.__enter__)
    await asyncio.to_thread(context.__exit__, None, None, None)


async def overrides_of(here: Service) -> list[dict[str, object]]:
    """The overrides in force, as the admin port lists them."""
    _, body = await asyncio.to_thread(fetch, f"http://{here.admin}/api/v1/overrides")
    found: list[dict[str, object]] = json.loads(body)["overrides"]
    return found


async def test_a_database_without_a_locale_holds_every_text(
    sql_ascii: Postgres, tmp_path: Path
) -> None:
    url, load, note = sql_ascii.new_database(), Load(clients=2), "не те, чим здається 🐈"
    policy = tmp_path / "own.toml"
    policy.write_text("# Власні правила\n" + find_policy("demo").read_text(), encoding="utf-8")
    receiver = f"http://127.0.0.1:{free_port()}/"
    flags = ("--policy", str(policy), "--webhook-url", receiver, "--webhook-secret", SECRET)
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, "--database", url, *flags, data_folder=tmp_path)) as here,
    ):
        async with load.on(here.address):
            await load.answered(30)
        assert await state_of_ledger(here) == "ok"
        await deny(here.admin, sha256="ab" * 32, note=note)
        assert [one["note"] for one in await overrides_of(here)] == [note]
        for path in ("", "decisions", "overrides", f"decisions/{load.ids[0]}"):
            status, page = await asyncio.to_thread(fetch, f"http://{here.admin}/{path}")
            assert (status, "in trouble" in page) == (200, False)
        log = here.output()
    assert "Traceback" not in log
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, "--database", url, data_folder=tmp_path / "new")) as again,
    ):
        assert [one["note"] for one in await overrides_of(again)] == [note]
    rows = await asyncio.to_thread(recorded, url)
    assert [one for one in load.ids if rows[one] != 1] == []
    assert sql_ascii.run("show server_encoding", url=url) == [("SQL_ASCII",)]
    texts = [str(row[0]) for row in sql_ascii.run("select text from policies", url=url)]
    assert any("Власні правила" in text for text in texts)
    assert sql_ascii.run("select count(*) > 0 from deliveries", url=url) == [(True,)]


def recreated(server: Postgres, url: str) -> None:
    server.run("drop schema public cascade; create schema public", url=url)


def truncated(server: Postgres, url: str) -> None:
    tables = "decisions, policies, overrides, override_changes, deliveries"
    server.run(f"truncate {tables} restart identity", url=url)


def dropped(server: Postgres, url: str) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    server.run(f"drop database {name} with (force)", f"create database {name}")


@pytest.mark.parametrize("empty", [recreated, truncated, dropped])
async def test_a_database_that_is_emptied_under_load_costs_nothing_of_what_comes_after(
    empty: Callable[[Postgres, str], None], postgres: Postgres, tmp_path: Path
) -> None:
    """Two gateways notice at the same time; what is denied stays denied all along."""
    url, loads = postgres.new_database(), (Load(clients=3), Load(clients=3))

    def start(target: str, name: str) -> contextlib.AbstractAsyncContextManager[Service]:
        return off_loop(gateway(target, "--database", url, data_folder=tmp_path / name))

    async def denied_everywhere() -> bool:
        answers = [await post(here.address, GOOD) for here in (one, two)]
        return all(answer.body["cause"] == "override" for answer in answers)

    async with scripted(flag_some) as (target, _), start(target, "one") as one:
        async with start(target, "two") as two:
            await deny(one.admin, sha256=hashlib.sha256(GOOD).hexdigest(), note="погане")
            async with asyncio.timeout(30):
                while not await denied_everywhere():
                    pass
            before = await overrides_of(one)
            async with loads[0].on(one.address), loads[1].on(two.address):
                await loads[0].answered(30)
                await asyncio.to_thread(empty, postgres, url)
                # Of those that were on their way before, the database may have been emptied.
                for load in loads:
                    await load.answered(load.clients)
                begun = [len(load.answers) for load in loads]
                for load in loads:
                    await load.answered(100)
                    assert await denied_everywhere()
                for here, load in ((one, loads[0]), (two, loads[1])):
                    await until_ledger(here, load, ok=True)
            async with asyncio.timeout(60):
                while await written_back(postgres, url) != 1:
                    pass
            assert await denied_everywhere()
            assert await overrides_of(one) == await overrides_of(two) == before
            logs = (one.output(), two.output())
        # And so says the database to a gateway that has no copy of its own.
        async with start(target, "three") as three:
            assert await overrides_of(three) == before
    rows = await asyncio.to_thread(recorded, url)
    after = [key for load, first in zip(loads, begun, strict=True) for key in load.ids[first:]]
    assert [key for key in after if rows[key] != 1] == []
    assert postgres.run("select count(*) from policies", url=url) == [(1,)]
    assert await written_back(postgres, url) == 1
    for log in logs:
        assert "Traceback" not in log
        assert log.count("decisions go to the spool") <= 8  # and not each second


async def written_back(server: Postgres, url: str) -> int:
    """The number of entries of the history by which a gateway wrote an override back."""
    query = "select count(*) from override_changes where why like 'written back%'"
    with contextlib.suppress(psycopg.Error):
        return int(str((await asyncio.to_thread(server.run, query, url=url))[0][0]))
    return 0


async def test_a_wrong_password_is_one_line_and_is_mended_without_a_restart(
    postgres: Postgres, tmp_path: Path
) -> None:
    role, load = postgres.new_name(), Load(clients=2)
    url = postgres.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    postgres.run(
        f"create role {role} login password 'another'",
        f"grant all on schema public to {role}",
        url=url,
    )
    postgres.admit(f"local all {role} scram-sha-256")
    words = f'password authentication failed for user "{role}"'
    theirs = postgres.url(name, f"{role}:{SECRET}")
    async with (
        scripted(flag_some) as (target, _),
        off_loop(gateway(target, "--database", theirs, data_folder=tmp_path)) as here,
        load.on(here.address),
    ):
        await load.answered(200)
        status, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
        assert (status, words in json.loads(body)["components"]["ledger"]) == (200, True)
        _, page = await asyncio.to_thread(fetch, f"http://{here.admin}/")
        assert "The ledger is in trouble" in page
        said = here.output()
        assert [words in line for line in said.splitlines()].count(True) == 1
        assert "Traceback" not in said
        assert SECRET not in said + body + page
        postgres.run(f"alter role {role} password '{SECRET}'")
        await until_ledger(here, load, ok=True)
        await load.answered(10)
    assert load.failures == 0
    rows = await asyncio.to_thread(recorded, url)
    assert [one for one in load.ids if rows[one] != 1] == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "the database URL can't be read"),
        (f"mysql://gateway:{SECRET}@localhost/x", "not mysql"),
        (f"postgresql+asyncpg://gateway:{SECRET}@localhost/x", "the database driver is psycopg"),
        (f"postgresql://gateway:{SECRET}@localhost/x?colour=red", "colour"),
        (f"postgresql://gateway:{SECRET}@{SECRET}@localhost/x", "%40"),
        ("sqlite://", "needs the path of a file"),
    ],
)
def test_only_a_url_that_can_not_be_read_ends_the_start(
    url: str, words: str, tmp_path: Path
) -> None:
    flags = (
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--inference",
        "127.0.0.1:1",
    )
    command = [sys.executable, "-m", "gateway", *flags, "--data-folder", str(tmp_path)]
    ended = subprocess.run(
        [*command, "--database", url], capture_output=True, timeout=60, text=True
    )
    lines = (ended.stdout + ended.stderr).splitlines()
    assert (ended.returncode, len(lines)) == (2, 1), lines
    assert words in lines[0]
    assert SECRET not in lines[0]
