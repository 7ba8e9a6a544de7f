import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, inspect, select, text
from sqlalchemy.exc import OperationalError

from gateway.ledger.database import LedgerError, migrate, open_engine, sqlite_url
from gateway.ledger.errors import may_be_of_the_session
from gateway.ledger.rows import record_of, row_of
from gateway.ledger.tables import decisions, metadata
from tests.gateway.ledger.records import a_record

MIGRATE = """
import sys
from gateway.ledger.database import migrate, open_engine
migrate(open_engine(sys.argv[1]))
"""


def test_migrations_make_the_tables_of_the_code(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_rows_of_an_older_version_are_kept(url: str) -> None:
    record = a_record(reference="files/a.png", user_agent="pict-rs 0.5.25")
    engine = open_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(insert(decisions).values(row_of(record)))
        for column in ("reference", "user_agent"):  # r0002
            connection.execute(text(f"alter table decisions drop column {column}"))
        connection.execute(text("update alembic_version set version_num = '0001'"))
    migrate(engine)
    with engine.connect() as connection:
        found = record_of(connection.execute(select(decisions)).one())
    assert found == replace(record, reference=None, user_agent=None)
    engine.dispose()


def test_gateways_that_start_together_migrate_once(url: str) -> None:
    command = [sys.executable, "-c", MIGRATE, url]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    outcomes = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outcomes
    engine = open_engine(url)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


def test_a_newer_database_is_refused(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"newer version .* revision 9999, and 0\d+ is the"):
        migrate(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nonsense", "can't be read"),
        ("", "can't be read"),
        ("sqlite:////tmp/ledger.db?timeout=soon", "can't be used"),
        ("sqlite:////tmp/ledger.db?timeout=1&timeout=2", "can't be used"),
        ("postgresql://user:hunter2@host:port/name", "can't be read"),
        ("mysql://user:hunter2@host/name", "not mysql"),
        ("postgresql+asyncpg://user:hunter2@host/name", "psycopg, not"),
        ("sqlite://", "path of a file"),
        ("sqlite:///:memory:", "path of a file"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused(wrong: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message) as refusal:
        open_engine(wrong)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("not a database, but long enough to have a header\n" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        migrate(open_engine(sqlite_url(file)))


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="can't be used"):
        migrate(open_engine(sqlite_url(tmp_path / "file" / "ledger.db")))


def test_only_its_owner_can_read_a_sqlite_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "a folder? 100%"
    engine = open_engine(sqlite_url(folder / "ledger.db"))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    engine.dispose()
    names = ("ledger.db", "ledger.db-wal", "ledger.db-shm")
    assert modes == {folder.name: 0o700, **dict.fromkeys(names, 0o600)}


def test_a_file_that_was_opened_only_to_read_is_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    migrate(open_engine(sqlite_url(file)))
    engine = create_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    with engine.connect() as connection, pytest.raises(OperationalError) as refusal:
        connection.execute(text("delete from policies"))
    engine.dispose()
    assert may_be_of_the_session(refusal.value)
