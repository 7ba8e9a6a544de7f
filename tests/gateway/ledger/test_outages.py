"""The ledger with a database that is locked, gone, full, stopped or hanging."""

import asyncio
import contextlib
import resource
import shutil
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from gateway.ledger.database import _MIGRATION_LOCK, migrate, open_engine, sqlite_url
from gateway.ledger.ledger import Ledger, LedgerUnavailableError, Stored
from gateway.metrics import Metrics
from imagesafety.policy_file import find_policy, load_policy
from tests.gateway.ledger.records import (
    SCORED_BY,
    a_record,
    become,
    drained,
    ids_in,
    record_all,
    refuse_bad,
    running_ledger,
    soon,
    spool_files,
)
from tests.gateway.postgres import Postgres, running_postgres


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "ledger.db"


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else writes to a SQLite database, and takes long."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow: the nearest to a full disk that needs no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Load:
    """Uploads that keep coming, each recorded."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stops = False
        self.ids: list[list[str]] = []  # of each client, in its order
        self.stored: list[Stored] = []

    async def _client(self) -> None:
        self.ids.append(ids := [])
        while not self._stops:
            record = a_record()
            self.stored.append(await self._ledger.record(record, until=soon()))
            ids.append(record.id)

    @contextlib.asynccontextmanager
    async def running(self, clients: int = 8) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())
            yield
            self._stops = True

    async def stored_more(self, rows: int, where: Stored) -> None:
        """Waits until so many rows more are stored there."""
        enough = self.stored.count(where) + rows
        await become(lambda: self.stored.count(where) >= enough, f"{rows} rows in {where}")


def check_all_there(url: str, load: Load) -> None:
    """Every row is there, once, and those of a client in its order."""
    places = {found: place for place, found in enumerate(ids_in(url))}
    assert len(places) == len(ids_in(url)) == len(load.stored)
    for ids in load.ids:
        assert [places[one] for one in ids] == sorted(places[one] for one in ids)
    assert Stored.NOWHERE not in load.stored


async def test_while_the_database_is_locked_rows_go_to_the_spool_in_order(
    file: Path, tmp_path: Path
) -> None:
    url, spool, metrics = sqlite_url(file), tmp_path / "spool", Metrics()
    records = [a_record() for _ in range(60)]
    async with running_ledger(url, spool, metrics=metrics) as ledger:
        assert await ledger.record(records[0], until=soon()) is Stored.DATABASE
        with locked(file):
            for record in records[1:20]:
                assert await ledger.record(record, until=soon()) is Stored.SPOOL
            assert set(await record_all(ledger, records[20:40])) == {Stored.SPOOL}
            assert "locked" in (ledger.trouble() or "")
            gauge = metrics.registry.get_sample_value("imagesafety_ledger_spooled_rows")
            assert gauge == 39
            assert len(ids_in(url)) == 1
            assert (
                await ledger.find_scored(records[0].sha256 or b"", "image/jpeg", SCORED_BY) is None
            )
        await record_all(ledger, records[40:])
        await drained(ledger, spool)
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
        assert metrics.registry.get_sample_value("imagesafety_ledger_spooled_rows") == 0
    assert ids_in(url)[:60] == [record.id for record in records]


async def test_a_database_that_is_locked_again_and_again_costs_nothing(
    file: Path, tmp_path: Path
) -> None:
    url, spool = sqlite_url(file), tmp_path / "spool"
    async with running_ledger(url, spool) as ledger:
        load = Load(ledger)
        async with load.running():
            for _ in range(6):
                await load.stored_more(20, Stored.DATABASE)
                with locked(file):
                    await load.stored_more(20, Stored.SPOOL)
        await drained(ledger, spool)
    check_all_there(url, load)


async def test_a_row_never_waits_longer_than_its_upload(file: Path, tmp_path: Path) -> None:
    url = sqlite_url(file)
    async with running_ledger(url, tmp_path / "spool") as ledger:
        with locked(file):
            record = a_record()
            until = time.monotonic() + 0.1
            await ledger.record(record, until=until)
            late = a_record()
            await ledger.record(late, until=time.monotonic() - 1)
        await become(lambda: set(ids_in(url)) == {record.id, late.id}, "both are stored later")


async def test_an_upload_without_time_says_nothing_of_the_database(
    url: str, tmp_path: Path
) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        hurried = [a_record() for _ in range(20)]
        for record in hurried:
            await ledger.record(record, until=time.monotonic() - 1)
            assert ledger.trouble() is None
        await drained(ledger, tmp_path / "spool")
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
        await become(lambda: len(ids_in(url)) == 21, "all are stored")


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """This process can open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_spool_that_can_not_be_read_now_is_read_later(file: Path, tmp_path: Path) -> None:
    url, spool = sqlite_url(file), tmp_path / "spool"
    records = [a_record() for _ in range(20)]
    async with running_ledger(url, spool) as ledger:
        await ledger.record(a_record(), until=soon())
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            assert set(await record_all(ledger, records)) == {Stored.SPOOL}
            # Still locked: what was read before can't be written meanwhile.
            with no_more_files():
                await become(lambda: "open files" in (ledger.trouble() or ""), "it can't be read")
            stranger.execute("ROLLBACK")
        await drained(ledger, spool)
    assert set(ids_in(url)) >= {record.id for record in records}


async def test_a_file_that_can_never_be_read_holds_up_no_other(file: Path, tmp_path: Path) -> None:
    url, spool = sqlite_url(file), tmp_path / "spool"
    spool.mkdir()
    (spool / "0000000001-0123abcd.spool").mkdir()
    async with running_ledger(url, spool) as ledger:
        await become(lambda: ledger.trouble() is None, "the others are brought")
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
    assert (spool / "0000000001-0123abcd.damaged").exists()


async def test_a_copy_that_is_put_in_place_is_used_without_an_upload(
    file: Path, tmp_path: Path
) -> None:
    async with running_ledger(sqlite_url(file), tmp_path / "spool") as ledger:
        await ledger.record(a_record(), until=soon())
        copy = tmp_path / "copy.db"
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("VACUUM INTO ?", (str(copy),))
        shutil.move(copy, file)
        with pytest.raises(LedgerUnavailableError):
            await ledger.transaction(lambda connection: None)
        await become(lambda: ledger.trouble() is None, "the copy is taken")
        await ledger.transaction(lambda connection: None)


async def test_what_is_changed_in_a_database_that_was_moved_away_is_not_confirmed(
    file: Path, tmp_path: Path
) -> None:
    async with running_ledger(sqlite_url(file), tmp_path / "spool") as ledger:
        await ledger.record(a_record(), until=soon())
        await ledger.transaction(lambda connection: None)
        shutil.move(file, tmp_path / "elsewhere")
        with pytest.raises(LedgerUnavailableError, match="is gone"):
            await ledger.transaction(lambda connection: None)
        assert "is gone" in (ledger.trouble() or "")
        shutil.move(tmp_path / "elsewhere", file)
        await ledger.transaction(lambda connection: None)
        # The writer may have looked while the file was away, and looks again soon.
        await become(lambda: ledger.trouble() is None, "the database is there again")


async def test_a_database_that_is_busy_at_the_start_keeps_nobody_waiting(
    postgres: Postgres, tmp_path: Path
) -> None:
    url, spool = postgres.new_database(), tmp_path / "spool"
    engine = open_engine(url)
    with engine.connect() as stranger:  # another gateway migrates, and takes long
        stranger.execute(select(func.pg_advisory_lock(_MIGRATION_LOCK)))
        async with running_ledger(url, spool) as ledger:
            record = a_record()
            assert await ledger.record(record, until=soon()) is Stored.SPOOL
            assert ledger.trouble() is not None
            stranger.rollback()
            stranger.execute(select(func.pg_advisory_unlock(_MIGRATION_LOCK)))
            stranger.rollback()
            await drained(ledger, spool)
    engine.dispose()
    assert ids_in(url) == [record.id]


async def test_a_database_that_is_moved_away_gets_its_rows_when_it_is_back(
    file: Path, tmp_path: Path
) -> None:
    url, spool = sqlite_url(file), tmp_path / "spool"
    load = Load(ledger := Ledger(url, spool, Metrics(), retention_days=90))
    await ledger.start()
    async with load.running():
        await load.stored_more(20, Stored.DATABASE)
        file.parent.rename(tmp_path / "elsewhere")
        await load.stored_more(50, Stored.SPOOL)
        assert "gone" in (ledger.trouble() or "")
        (tmp_path / "elsewhere").rename(file.parent)
        await load.stored_more(20, Stored.DATABASE)
    await ledger.close()
    check_all_there(url, load)


async def test_another_database_in_its_place_is_taken(file: Path, tmp_path: Path) -> None:
    url, spool = sqlite_url(file), tmp_path / "spool"
    other = tmp_path / "other" / "ledger.db"
    migrate(engine := open_engine(sqlite_url(other)))
    engine.dispose()
    async with running_ledger(url, spool) as ledger:
        await ledger.record(a_record(), until=soon())
        shutil.rmtree(file.parent)
        other.parent.rename(file.parent)
        record = a_record()
        assert await ledger.record(record, until=soon()) is Stored.SPOOL
        await drained(ledger, spool)
    assert ids_in(url) == [record.id]


async def test_with_a_full_disk_rows_are_lost_loudly_and_it_recovers(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, metrics = sqlite_url(file), Metrics()
    policy = load_policy(find_policy("demo"))
    async with running_ledger(url, tmp_path / "spool", metrics=metrics) as ledger:
        ledger.note_policy(policy)
        await ledger.record(a_record(), until=soon())
        caplog.clear()
        with full_disk():
            lost = [a_record() for _ in range(50)]
            for record in lost:
                assert await ledger.record(record, until=soon()) is Stored.NOWHERE
            for _ in range(3):  # tries of the database, none of which finds room
                assert "lost" in (ledger.trouble() or "")
                await asyncio.sleep(0.5)
        assert sum("lost" in line for line in caplog.messages) == 1
        await become(lambda: ledger.trouble() is None, "no trouble any more")
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
    labels = {"stored": "nowhere"}
    assert metrics.registry.get_sample_value("imagesafety_ledger_rows_total", labels) == 50
    assert len(ids_in(url)) == 2


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
async def test_a_database_that_is_down_at_the_start_is_used_when_it_comes(
    driver: str, postgres: Postgres, tmp_path: Path
) -> None:
    url, spool = postgres.new_database(), tmp_path / "spool"
    with contextlib.closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        down = f"{driver}://gateway@127.0.0.1:{reserved.getsockname()[1]}/ledger"
        policy = load_policy(find_policy("demo"))
        record = a_record()
        async with running_ledger(down, spool) as ledger:
            assert ledger.trouble() is not None
            ledger.note_policy(policy)
            assert await ledger.record(record, until=soon()) is Stored.SPOOL
            with pytest.raises(LedgerUnavailableError):
                await ledger.transaction(lambda connection: None)
    assert spool_files(spool)
    async with running_ledger(url, spool, webhooks=True) as ledger:
        await drained(ledger, spool)
        texts = await ledger.transaction(
            lambda connection: (
                connection.exec_driver_sql("select text from policies").scalars().all()
            )
        )
    assert ids_in(url) == [record.id]
    assert texts == [policy.text]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of our own: the others' stays up."""
    with running_postgres() as server:
        yield server


def stop(server: Postgres) -> Callable[[], None]:
    server.stop()
    return server.start


def kill(server: Postgres) -> Callable[[], None]:
    server.kill()
    return server.start


def pause(server: Postgres) -> Callable[[], None]:
    server.pause()
    return server.resume


@pytest.mark.parametrize("outage", [stop, kill, pause])
async def test_an_outage_under_load_costs_nothing(
    outage: Callable[[Postgres], Callable[[], None]], server: Postgres, tmp_path: Path
) -> None:
    url, spool = server.new_database(), tmp_path / "spool"
    ledger = Ledger(url, spool, Metrics(), retention_days=90)
    await ledger.start()
    load = Load(ledger)
    async with load.running():
        for _ in range(2):
            await load.stored_more(50, Stored.DATABASE)
            end = await asyncio.to_thread(outage, server)
            await load.stored_more(200, Stored.SPOOL)
            assert ledger.trouble() is not None
            await asyncio.to_thread(end)
            await load.stored_more(50, Stored.DATABASE)
    await drained(ledger, spool)
    await ledger.close()
    check_all_there(url, load)


async def test_a_long_hang_is_given_up_and_what_was_sent_is_not_doubled(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.store.ANSWER_SECONDS", 0.5)
    url, spool = server.new_database(), tmp_path / "spool"
    async with running_ledger(url, spool) as ledger:
        load = Load(ledger)
        async with load.running():
            await load.stored_more(50, Stored.DATABASE)
            server.pause()
            try:
                await load.stored_more(200, Stored.SPOOL)
                await become(lambda: "time" in (ledger.trouble() or ""), "the hang is given up")
            finally:
                server.resume()
            await load.stored_more(50, Stored.DATABASE)
        await drained(ledger, spool)
    check_all_there(url, load)


async def test_a_restart_between_two_rows_is_not_even_noticed(
    server: Postgres, tmp_path: Path
) -> None:
    url = server.new_database()
    async with running_ledger(url, tmp_path / "spool") as ledger:
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
        await asyncio.to_thread(server.restart)
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
        assert len(await ledger.transaction(lambda c: c.exec_driver_sql("select 1").all())) == 1


async def test_rows_that_only_a_newer_version_could_write_are_kept_for_it(
    url: str, tmp_path: Path
) -> None:
    def become_newer(connection: Connection) -> None:
        refuse_bad(connection)
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")

    spool = tmp_path / "spool"
    async with running_ledger(url, spool) as ledger:
        await ledger.transaction(become_newer)
        assert await ledger.record(a_record(message="bad"), until=soon()) is Stored.SPOOL
        assert "newer" in (ledger.trouble() or "")
    assert spool_files(spool)
