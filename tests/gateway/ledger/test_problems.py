"""All that a database can say: it is one line, rows wait in the spool, and follow by themselves."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, literal, select

from gateway.ledger import database
from gateway.ledger.database import migrate, open_engine, sqlite_url
from gateway.ledger.ledger import LedgerUnavailableError, Stored
from gateway.ledger.tables import policies
from imagesafety.policy_file import find_policy, load_policy
from tests.gateway.ledger.records import (
    a_record,
    become,
    drained,
    ids_in,
    record_all,
    running_ledger,
    soon,
)
from tests.gateway.postgres import Postgres, running_postgres

POLICY = load_policy(find_policy("demo"))
SECRET = "hunter2-hunter2"


@dataclass
class Problem:
    """A database with something wrong, its report, and the way to mend it."""

    url: str
    words: str
    mend: Callable[[], object]


def sql(server: Postgres, url: str, *statements: str) -> Callable[[], object]:
    return partial(server.run, *statements, url=url)


def a_role(server: Postgres, options: str = "") -> tuple[str, str, str]:
    """The name of a role with a password, and the URL and name of a database for it."""
    name = server.new_name()
    url = server.new_database()
    server.run(f"create role {name} login password '{SECRET}' {options}")
    here = url.partition("@/")[2].partition("?")[0]
    return name, server.url(here, f"{name}:{SECRET}"), here


def may_make_tables(server: Postgres, url: str, role: str) -> Callable[[], object]:
    return sql(server, url, f"grant all on schema public to {role}")


def wrong_password(server: Postgres) -> Problem:
    role, url, _ = a_role(server)
    may_make_tables(server, url, role)()
    server.run(f"alter role {role} password 'another'")
    server.admit(f"local all {role} scram-sha-256")
    mend = sql(server, "", f"alter role {role} password '{SECRET}'")
    return Problem(url, f'password authentication failed for user "{role}"', mend)


def nobody_of_this_name(server: Postgres) -> Problem:
    role, name = server.new_name(), server.new_name()
    statements = f"create role {role} login", f"create database {name} owner {role}"
    url = server.url(name, f"{role}:{SECRET}")
    return Problem(url, f'role "{role}" does not exist', sql(server, "", *statements))


def no_database(server: Postgres) -> Problem:
    name = server.new_name()
    words = f'database "{name}" does not exist'
    return Problem(server.url(name), words, sql(server, "", f"create database {name}"))


def no_right_to_make_tables(server: Postgres) -> Problem:
    """As PostgreSQL 15 and later has it for everybody but the owner of the database."""
    role, url, _ = a_role(server)
    words = "permission denied for schema public; the gateway's role needs CREATE"
    return Problem(url, words, may_make_tables(server, url, role))


def no_right_to_write(server: Postgres) -> Problem:
    role, url, _ = a_role(server)
    migrate_as_owner(server, url)
    tables = "all tables in schema public"
    server.run(f"grant select on {tables} to {role}", url=url)
    grants = f"grant all on {tables} to {role}", "grant all on all sequences in schema public to"
    return Problem(
        url, "permission denied for table", sql(server, url, grants[0], f"{grants[1]} {role}")
    )


def read_only(server: Postgres) -> Problem:
    url = server.new_database()
    return read_only_from_now_on(server, url)


def read_only_with_tables(server: Postgres) -> Problem:
    url = server.new_database()
    migrate_as_owner(server, url)
    return read_only_from_now_on(server, url)


def read_only_from_now_on(server: Postgres, url: str) -> Problem:
    name = url.partition("@/")[2].partition("?")[0]
    server.run(f"alter database {name} set default_transaction_read_only = on")
    mend = sql(server, "", f"alter database {name} reset default_transaction_read_only")
    return Problem(url, "read-only transaction; a database that can be written to", mend)


def newer(server: Postgres) -> Problem:
    url = server.new_database()
    migrate_as_owner(server, url)
    ours = server.run("select version_num from alembic_version", url=url)[0][0]
    server.run("update alembic_version set version_num = '9999'", url=url)
    mend = sql(server, url, f"update alembic_version set version_num = '{ours}'")
    return Problem(url, "newer version than this gateway: it has revision 9999", mend)


def of_another_program(server: Postgres) -> Problem:
    url = server.new_database()
    server.run("create table policies (id bigint primary key, premium numeric)", url=url)
    mend = sql(server, url, "drop table policies")
    return Problem(url, "the table 'policies' in the database has no digest, text", mend)


def of_another_program_with_revisions(server: Postgres) -> Problem:
    url = server.new_database()
    table = "create table alembic_version (version text)"
    server.run(table, "insert into alembic_version values ('1')", url=url)
    return Problem(
        url, "version_num does not exist", sql(server, url, "drop table alembic_version")
    )


def too_many_connections(server: Postgres) -> Problem:
    role, url, name = a_role(server)
    may_make_tables(server, url, role)()
    server.run(f"alter database {name} connection limit 0")
    mend = sql(server, "", f"alter database {name} connection limit -1")
    return Problem(url, f'too many connections for database "{name}"', mend)


def not_admitted(server: Postgres) -> Problem:
    role, url, _ = a_role(server)
    may_make_tables(server, url, role)()
    server.admit(f"local all {role} reject")
    return Problem(url, "pg_hba.conf rejects connection", server.admit)


def without_a_schema(server: Postgres) -> Problem:
    url = server.new_database()
    server.run("drop schema public", url=url)
    return Problem(url, "no schema has been selected", sql(server, url, "create schema public"))


PROBLEMS = (
    wrong_password,
    nobody_of_this_name,
    no_database,
    no_right_to_make_tables,
    no_right_to_write,
    read_only,
    read_only_with_tables,
    newer,
    of_another_program,
    of_another_program_with_revisions,
    too_many_connections,
    not_admitted,
    without_a_schema,
)


DOUBLE_THE_REVISION = (
    "alter table alembic_version drop constraint alembic_version_pkc; "
    "insert into alembic_version select version_num from alembic_version"
)


def migrate_as_owner(server: Postgres, url: str) -> None:
    engine = open_engine(server.url(url.partition("@/")[2].partition("?")[0]))
    migrate(engine)
    engine.dispose()


async def goes_to_the_spool_until_mended(
    problem: Problem, folder: Path, log: pytest.LogCaptureFixture
) -> None:
    """Run a ledger on it: rows are kept, the reason is given, and they are stored in the end."""
    records = [a_record() for _ in range(6)]
    spool = folder / "spool"
    async with running_ledger(problem.url, spool) as ledger:
        ledger.note_policy(POLICY)
        await become(lambda: problem.words in (ledger.trouble() or ""), problem.words)
        assert set(await record_all(ledger, records[:5])) == {Stored.SPOOL}
        for _ in range(3):  # each is a try of its own
            with contextlib.suppress(LedgerUnavailableError):
                await ledger.transaction(lambda connection: connection.execute(select(policies)))
        assert problem.words in (ledger.trouble() or "")
        lines = [one for one in log.records if one.name == "gateway"]
        loud = [one.getMessage() for one in lines if one.levelno >= logging.WARNING]
        assert [problem.words in line for line in loud] == [True], loud
        assert all(one.exc_info is None and "\n" not in one.getMessage() for one in lines)
        assert SECRET not in log.text
        problem.mend()
        await drained(ledger, spool)
        assert await ledger.record(records[5], until=soon()) is Stored.DATABASE
        found = await ledger.transaction(lambda c: c.scalars(select(policies.c.digest)).all())
        assert found == [POLICY.digest]
        ids = await ledger.transaction(ids_of)
    assert ids == [record.id for record in records]


def ids_of(connection: Connection) -> list[str]:
    return list(connection.exec_driver_sql("select id from decisions order by seq").scalars())


@pytest.mark.parametrize("make", PROBLEMS)
async def test_what_postgresql_says_at_the_start_is_one_line_until_it_is_mended(
    make: Callable[[Postgres], Problem],
    postgres: Postgres,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem = make(postgres)
    await goes_to_the_spool_until_mended(problem, tmp_path, caplog)


async def test_a_server_that_is_too_old_is_not_used(
    postgres: Postgres,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "OLDEST_POSTGRESQL", 99)
    problem = Problem(
        postgres.new_database(), "is too old; 99 or newer is expected", monkeypatch.undo
    )
    await goes_to_the_spool_until_mended(problem, tmp_path, caplog)


@pytest.mark.parametrize("error", [TypeError("a bytes-like object"), RuntimeError(), KeyError("x")])
async def test_a_driver_that_fails_in_its_own_way_is_one_line_too(
    error: Exception,
    postgres: Postgres,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> psycopg.Connection:
        raise error

    monkeypatch.setattr("psycopg.Connection.connect", fail)
    problem = Problem(postgres.new_database(), type(error).__name__, monkeypatch.undo)
    await goes_to_the_spool_until_mended(problem, tmp_path, caplog)


@pytest.mark.parametrize(
    "where",
    ["nobody@no-such-host.invalid/x", "nobody@127.0.0.1:1/x", "nobody@/x?host=/nowhere"],
)
async def test_a_server_that_is_not_found_is_said(where: str, tmp_path: Path) -> None:
    async with running_ledger(f"postgresql://{where}", tmp_path / "spool") as ledger:
        assert await ledger.record(a_record(), until=soon()) is Stored.SPOOL
        assert "\n" not in (ledger.trouble() or "\n")


def not_a_database(file: Path) -> str:
    file.write_text("not a database, but long enough to have a header\n" * 100)
    return "file is not a database"


def in_a_file(file: Path) -> str:
    file.parent.rmdir()
    file.parent.touch()
    return "can't be used"


def a_folder(file: Path) -> str:
    file.mkdir()
    return "can't be used"


def newer_file(file: Path) -> str:
    migrate(engine := open_engine(sqlite_url(file)))
    with engine.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    engine.dispose()
    return "newer version"


@pytest.mark.parametrize("spoil", [not_a_database, in_a_file, a_folder, newer_file])
async def test_what_is_wrong_with_a_sqlite_file_is_one_line_until_it_is_mended(
    spoil: Callable[[Path], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    words = spoil(folder / "ledger.db")

    def mend() -> None:
        folder.rename(tmp_path / "wrong")

    problem = Problem(sqlite_url(folder / "ledger.db"), words, mend)
    await goes_to_the_spool_until_mended(problem, tmp_path, caplog)


async def test_a_spool_that_can_not_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(database.LedgerError, match="the spool can't be used"):
        async with running_ledger(sqlite_url(tmp_path / "ledger.db"), tmp_path / "file" / "spool"):
            pass


@pytest.fixture(scope="module")
def sql_ascii() -> Iterator[Postgres]:
    with running_postgres(encoding="SQL_ASCII") as server:
        yield server


@pytest.fixture(params=["SQL_ASCII", "LATIN1", "WIN1251", "EUC_JP"])
def encoded(request: pytest.FixtureRequest) -> str:
    """A database of another encoding than UTF8."""
    if request.param == "SQL_ASCII":
        server: Postgres = request.getfixturevalue("sql_ascii")
        return server.new_database()
    server = request.getfixturevalue("postgres")
    return server.new_database(f"encoding '{request.param}' locale 'C' template template0")


@pytest.mark.parametrize(
    "encoding",
    [
        *(f"LATIN{number}" for number in range(1, 11)),
        *(f"WIN{number}" for number in (866, 874, *range(1250, 1259))),
        *("KOI8R", "KOI8U", "ISO_8859_5", "ISO_8859_8", "EUC_KR", "UTF8"),
    ],
)
def test_each_character_comes_back_from_each_encoding(encoding: str, postgres: Postgres) -> None:
    url = postgres.new_database(f"encoding '{encoding}' locale 'C' template template0")
    every = "".join(chr(code) for code in (*range(1, 0x3000), 0xFFFD, 0x1F431, 0x10FFFF))
    engine = open_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(select(literal(every))) == every
    engine.dispose()


TEXTS = ("Київ é 猫 \N{CAT FACE}", r"\u0456 \U0001f431 \\u \ ", "plain", "é", "п" * 500)


async def test_a_database_of_any_encoding_holds_all_text(encoded: str, tmp_path: Path) -> None:
    records = [
        a_record(decision="reject", message=text, rule=text, client=text[:20]) for text in TEXTS
    ]
    async with running_ledger(encoded, tmp_path / "spool", webhooks=True) as ledger:
        assert ledger.trouble() is None
        assert set(await record_all(ledger, records)) == {Stored.DATABASE}
        found = await ledger.transaction(
            lambda c: c.exec_driver_sql("select message, rule from decisions order by seq").all()
        )
        assert sorted(found) == sorted((text, text) for text in TEXTS)
        payloads = await ledger.transaction(
            lambda c: c.exec_driver_sql("select payload from deliveries").scalars().all()
        )
        assert all(isinstance(payload, str) for payload in payloads)
        assert len(payloads) == len(TEXTS)
    assert not (tmp_path / "spool" / "refused").exists()


@pytest.mark.parametrize("text", TEXTS)
async def test_text_is_found_again_in_any_encoding(text: str, encoded: str, tmp_path: Path) -> None:
    async with running_ledger(encoded, tmp_path / "spool") as ledger:
        await ledger.record(a_record(message=text), until=soon())
        query = "select count(*) from decisions where message = %s"
        count = await ledger.transaction(lambda c: c.exec_driver_sql(query, (text,)).scalar())
        assert count == 1


def recreate_schema(server: Postgres, url: str) -> None:
    server.run("drop schema public cascade; create schema public", url=url)


def drop_schema_and_recreate_it_later(server: Postgres, url: str) -> None:
    server.run("drop schema public cascade", "create schema public", url=url)


def recreate_database(server: Postgres, url: str) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    server.run(f"drop database {name} with (force)", f"create database {name}")


def drop_tables(server: Postgres, url: str) -> None:
    server.run("drop table decisions, deliveries", url=url)


def drop_all_but_revisions(server: Postgres, url: str) -> None:
    names = "decisions, deliveries, policies, overrides, override_changes"
    server.run(f"drop table {names}", url=url)


def drop_policies_and_revisions(server: Postgres, url: str) -> None:
    server.run("drop table policies, alembic_version", url=url)


def truncate(server: Postgres, url: str) -> None:
    names = "decisions, deliveries, policies, overrides, override_changes"
    server.run(f"truncate {names} restart identity", url=url)


def take_columns_away(server: Postgres, url: str) -> None:
    """As a backup of an older version does that is restored."""
    changes = "alter table decisions drop column reference, drop column user_agent"
    server.run(f"{changes}; update alembic_version set version_num = '0001'", url=url)


@pytest.mark.parametrize(
    "empty",
    [
        recreate_schema,
        drop_schema_and_recreate_it_later,
        recreate_database,
        drop_tables,
        drop_all_but_revisions,
        drop_policies_and_revisions,
        truncate,
        take_columns_away,
    ],
)
async def test_tables_that_go_while_we_run_are_made_again_and_no_row_is_lost(
    empty: Callable[[Postgres, str], None],
    postgres: Postgres,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = postgres.new_database()
    async with (
        running_ledger(url, tmp_path / "one") as one,
        running_ledger(url, tmp_path / "other") as other,
    ):
        for ledger in (one, other):
            ledger.note_policy(POLICY)
            await ledger.record(a_record(), until=soon())
        empty(postgres, url)
        records = [a_record() for _ in range(40)]
        stored = [*await record_all(one, records[:20]), *await record_all(other, records[20:])]
        assert Stored.NOWHERE not in stored
        await drained(one, tmp_path / "one")
        await drained(other, tmp_path / "other")
        await become(lambda: texts_in(postgres, url) == [POLICY.digest], "the policy's text")
        assert {record.id for record in records} <= set(ids_in(url))
        assert await one.record(a_record(), until=soon()) is Stored.DATABASE
    assert not any(one.exc_info for one in caplog.records)


def texts_in(server: Postgres, url: str) -> list[object]:
    try:
        return [row[0] for row in server.run("select digest from policies", url=url)]
    except psycopg.errors.UndefinedTable:
        return []


async def test_rows_that_wait_while_the_database_is_emptied_are_in_the_new_one(
    postgres: Postgres, tmp_path: Path
) -> None:
    """Those of a gateway that has ended too, with the text of the policy that judged them."""
    url, spool = postgres.new_database(), tmp_path / "spool"
    here = url.partition("@/")[2].partition("?")[0]
    records = [a_record() for _ in range(20)]
    others = f"from pg_stat_activity where datname = '{here}'"
    async with running_ledger(url, spool) as ledger:
        ledger.note_policy(POLICY)
        await ledger.record(a_record(), until=soon())
        postgres.run(f"alter database {here} allow_connections false")
        postgres.run(f"select pg_terminate_backend(pid) {others}")
        stored = await record_all(ledger, records)
        assert set(stored) == {Stored.SPOOL}
    postgres.run(f"drop database {here} with (force)", f"create database {here}")
    async with running_ledger(url, spool) as ledger:
        await drained(ledger, spool)
    assert ids_in(url) == [record.id for record in records]
    assert texts_in(postgres, url) == [POLICY.digest]


async def test_numbers_that_are_taken_cost_no_row(postgres: Postgres, tmp_path: Path) -> None:
    """A backup was restored, but not its sequences."""
    url = postgres.new_database()
    async with running_ledger(url, tmp_path / "spool") as ledger:
        records = [a_record() for _ in range(50)]
        await record_all(ledger, records)
        postgres.run("alter sequence decisions_seq_seq restart", url=url)
        more = [a_record() for _ in range(50)]
        assert Stored.NOWHERE not in await record_all(ledger, more)
        await drained(ledger, tmp_path / "spool")
    assert ids_in(url) == [record.id for record in (*records, *more)]


@pytest.mark.parametrize("with_tables", [False, True])
async def test_a_standby_is_used_when_it_is_promoted(
    with_tables: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_postgres() as server:
        url = server.new_database()
        if with_tables:
            migrate_as_owner(server, url)
        server.restart_as_standby()
        words = "read-only transaction; a database that can be written to is expected"
        problem = Problem(url, words, sql(server, "", "select pg_promote()"))
        await goes_to_the_spool_until_mended(problem, tmp_path, caplog)


async def test_an_emptied_database_is_filled_without_an_upload(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    async with running_ledger(url, tmp_path / "spool") as ledger:
        ledger.note_policy(POLICY)
        await become(lambda: texts_in(postgres, url) == [POLICY.digest], "the policy's text")
        recreate_schema(postgres, url)
        await become(lambda: has_tables(postgres, url), "the tables are made again")
        await become(lambda: texts_in(postgres, url) == [POLICY.digest], "the text too")
        await become(lambda: ledger.trouble() is None, "and all is well")


def has_tables(server: Postgres, url: str) -> bool:
    query = "select 1 from pg_tables where schemaname = 'public' and tablename = 'policies'"
    return bool(server.run(query, url=url))


@pytest.mark.parametrize(
    "spoil",
    [
        "delete from alembic_version",
        "drop table alembic_version",
        DOUBLE_THE_REVISION,
        "insert into alembic_version values ('0001')",
        "drop table alembic_version, decisions",
    ],
)
async def test_a_lost_revision_is_found_out_by_the_tables(
    spoil: str, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    migrate_as_owner(postgres, url)
    revision = postgres.run("select version_num from alembic_version", url=url)
    postgres.run(spoil, url=url)
    async with running_ledger(url, tmp_path / "spool") as ledger:
        assert ledger.trouble() is None
        assert await ledger.record(a_record(), until=soon()) is Stored.DATABASE
    assert postgres.run("select version_num from alembic_version", url=url) == revision


async def test_tables_that_go_from_a_sqlite_file_are_made_again_in_it(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with running_ledger(sqlite_url(file), tmp_path / "spool") as ledger:
        await ledger.record(a_record(), until=soon())
        with contextlib.closing(sqlite3.connect(file)) as stranger:
            for name in ("decisions", "policies", "override_changes"):
                stranger.execute(f"drop table {name}")
        record = a_record()
        assert await ledger.record(record, until=soon()) is Stored.SPOOL
        await drained(ledger, tmp_path / "spool")
        assert ids_in(sqlite_url(file)) == [record.id]
        shutil.move(file, tmp_path / "elsewhere")
        assert await ledger.record(a_record(), until=soon()) is Stored.SPOOL
    assert not file.exists()


async def test_a_sqlite_file_that_is_emptied_in_place_is_filled_again(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    async with running_ledger(sqlite_url(file), tmp_path / "spool") as ledger:
        await ledger.record(a_record(), until=soon())
        os.truncate(file, 0)
        records = [a_record() for _ in range(3)]
        assert await record_all(ledger, records) == [Stored.SPOOL] * 3
        await drained(ledger, tmp_path / "spool")
        assert set(ids_in(sqlite_url(file))) >= {record.id for record in records}


async def test_a_spool_that_is_removed_while_the_database_is_down_costs_only_its_own_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "data" / "spool"
    with running_postgres() as server:
        url = server.new_database()
        async with running_ledger(url, spool) as ledger:
            server.stop()
            assert await ledger.record(a_record(), until=soon()) is Stored.SPOOL
            shutil.rmtree(spool.parent)
            records = [a_record() for _ in range(3)]
            assert await record_all(ledger, records) == [Stored.SPOOL] * 3
            await become(lambda: "of the spool is gone" in caplog.text, "a look at the spool")
            server.start()
            await drained(ledger, spool)
        assert set(ids_in(url)) == {record.id for record in records}
    assert caplog.text.count("decisions go to the database again") == 1
