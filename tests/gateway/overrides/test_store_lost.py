"""A database that has lost overrides: emptied, replaced, or restored from a backup."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.ledger.database import open_engine, sqlite_url
from gateway.overrides.changing import PUT_BACK_BY
from gateway.overrides.entries import NewOverride
from gateway.overrides.matching import Override
from gateway.overrides.saved_copy import read_copy, write_copy
from gateway.overrides.store import OverrideStore
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, sha
from tests.gateway.overrides.running import running_store, until
from tests.gateway.postgres import Postgres

ENTRIES = [
    NewOverride(DENY, sha(1), LOOK, note="погане 🐈"),
    NewOverride(ALLOW, sha(2), sha(12), "правило", "a meme"),
    NewOverride(DENY, pdq=sha(13)),
]
TABLES = ("overrides", "override_changes")


def execute(url: str, *statements: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def tables_dropped(url: str) -> None:
    execute(url, *(f"drop table {name}" for name in TABLES))


def everything_dropped(url: str) -> None:
    others = ("decisions", "policies", "deliveries", "alembic_version")
    execute(url, *(f"drop table {name}" for name in (*TABLES, *others)))


def both_emptied(url: str) -> None:
    execute(url, *(f"delete from {name}" for name in TABLES))


def entries_emptied(url: str) -> None:
    execute(url, "delete from overrides")


def one_entry_deleted(url: str) -> None:
    execute(url, "delete from overrides where id = (select min(id) from overrides)")


def history_emptied(url: str) -> None:
    execute(url, "delete from override_changes")


LOSSES = (
    tables_dropped,
    everything_dropped,
    both_emptied,
    entries_emptied,
    one_entry_deleted,
    history_emptied,
)


async def put_back(store: OverrideStore) -> list[str]:
    """The ids of what the history says was written back."""
    history = await store.history(limit=1000)
    return [change.override_id for change in history if change.who == PUT_BACK_BY]


def by_id(store: OverrideStore) -> dict[str, Override]:
    return {entry.id: entry for entry in store.current.entries}


async def until_well(store: OverrideStore, count: int) -> None:
    """Wait until the database has as many overrides as are in force, and was read."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Exception):
                await store.refresh()
                if len(store.current) == count and store.trouble() is None:
                    return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("lose", LOSSES)
async def test_what_is_lost_while_gateways_run_is_written_back_once(
    lose: Callable[[str], None], database: str, tmp_path: Path
) -> None:
    async with (
        running_store(database, tmp_path / "one") as one,
        running_store(database, tmp_path / "two") as two,
    ):
        await one.add(ENTRIES, "me", "seen")
        await two.refresh()
        before = by_id(one)
        lose(database)
        with contextlib.suppress(Exception):
            await asyncio.gather(one.refresh(), two.refresh())
        assert by_id(one) == by_id(two) == before
        await asyncio.gather(until_well(one, 3), until_well(two, 3))
        assert by_id(one) == by_id(two) == before
        ids = await put_back(one)
        assert len(ids) == len(set(ids))
        async with running_store(database) as third:
            assert by_id(third) == before
        await one.remove(one.current.entries[0].id, "me", "mistaken")
        await two.refresh()
        assert len(two.current) == 2


@pytest.mark.parametrize("lose", LOSSES)
async def test_what_is_lost_while_no_gateway_runs_is_written_back_from_the_copy(
    lose: Callable[[str], None], database: str, tmp_path: Path
) -> None:
    copy = tmp_path / "overrides.json"
    async with running_store(database, copy) as store:
        await store.add(ENTRIES, "me", "seen")
        before = by_id(store)
    lose(database)
    async with running_store(database, copy) as store, running_store(database, copy) as other:
        await until_well(store, 3)
        await until_well(other, 3)
        assert by_id(store) == by_id(other) == before
        ids = await put_back(store)
        assert len(ids) == len(set(ids))
    async with running_store(database) as again:
        assert by_id(again) == before


async def test_a_new_database_gets_what_is_in_an_old_copy(tmp_path: Path) -> None:
    """A copy of before, which does not say what it has; the history says who wrote it back."""
    copy = tmp_path / "overrides.json"
    async with running_store(sqlite_url(tmp_path / "one.sqlite"), copy) as store:
        await store.add(ENTRIES, "me", "seen")
        before = store.current.entries
    write_copy(copy, before)
    async with running_store(sqlite_url(tmp_path / "two.sqlite"), copy) as store:
        assert store.current.entries == before
        assert set(await put_back(store)) == {entry.id for entry in before}
        why = (await store.history())[0].why
        assert "written back" in why
    saved = read_copy(copy)
    assert saved is not None
    assert saved.mark is not None


async def test_what_was_removed_stays_removed(database: str, tmp_path: Path) -> None:
    """The copy of a gateway that was stopped is older than the database."""
    copies = (tmp_path / "one", tmp_path / "two")
    async with running_store(database, copies[0]) as store:
        await store.add(ENTRIES, "me", "seen")
    shutil.copy(*copies)
    async with running_store(database, copies[0]) as store:
        for entry in store.current.entries:
            await store.remove(entry.id, "me", "mistaken")
    for copy in copies:
        async with running_store(database, copy) as store:
            assert store.current.entries == ()
            assert await put_back(store) == []
    saved = read_copy(copies[1])
    assert saved is not None
    assert saved.entries == ()


async def test_a_removal_after_the_loss_is_not_undone_by_another_gateway(
    database: str, tmp_path: Path
) -> None:
    async with running_store(database) as one, running_store(database) as two:
        await one.add(ENTRIES, "me", "seen")
        await two.refresh()
        both_emptied(database)
        await one.refresh()
        gone = one.current.entries[0]
        await one.remove(gone.id, "me", "mistaken")
        await one.add([NewOverride(DENY, sha(2))], "me", "not at all harmless")
        await two.refresh()
        assert by_id(two) == by_id(one)
        assert two.current.exact(sha(1)) is None
        found = two.current.exact(sha(2))
        assert found is not None
        assert found.action is DENY


async def test_an_older_backup_takes_nothing_out_of_force(tmp_path: Path) -> None:
    file, backup, copy = tmp_path / "ledger.db", tmp_path / "backup.db", tmp_path / "overrides.json"
    url = sqlite_url(file)
    async with running_store(url, copy) as store:
        await store.add([NewOverride(ALLOW, sha(1)), NewOverride(DENY, sha(9))], "me", "seen")
        back_up(file, backup)
        nine = store.current.exact(sha(9))
        assert nine is not None
        await store.remove(nine.id, "me", "mistaken")
        await store.add([NewOverride(DENY, sha(1)), NewOverride(DENY, sha(3))], "me", "worse")
        before = by_id(store)
    shutil.copy(backup, file)
    async with running_store(url, copy) as store:
        await until_well(store, 3)
        now = by_id(store)
        assert before.items() <= now.items()
        assert [entry.sha256 for key, entry in now.items() if key not in before] == [sha(9)]
        found = store.current.exact(sha(1))
        assert found is not None
        assert found.action is DENY


def back_up(file: Path, backup: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(file)) as one,
        contextlib.closing(sqlite3.connect(backup)) as other,
    ):
        one.backup(other)


async def test_a_long_list_is_written_back_whole(
    postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.new_database()
    entries = [NewOverride(DENY, sha(number), sha(number + 10_000)) for number in range(1300)]
    async with running_store(url, poll_seconds=0.05) as one, running_store(url) as two:
        await one.add(entries, "me", "a list")
        await two.refresh()
        postgres.run("drop schema public cascade; create schema public", url=url)
        await until(lambda: one.trouble() is not None)
        assert len(one.current) == 1300
        await asyncio.gather(until_well(one, 1300), until_well(two, 1300))
        assert by_id(one) == by_id(two)
        ids = [json.loads(change.entry)["id"] for change in await one.history(limit=2000)]
        assert sorted(ids) == sorted(by_id(one))
    assert "the database had lost" in caplog.text
    assert not any(record.exc_info for record in caplog.records)
