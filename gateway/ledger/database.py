"""Opens the ledger's database, SQLite or PostgreSQL, and brings its tables up to date."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from gateway.ledger.deadline import DeadlineConnection

CONNECT_SECONDS = 2
MIGRATION_SECONDS = 3600.0
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x696D6167  # "imag": one gateway at a time
_SQLITE_WRITES = "sqlite_writes"


class LedgerError(Exception):
    """The ledger's database can't be used until somebody changes something; says what."""


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def open_engine(
    url: str,
    *,
    busy_seconds: float = 5.0,
    answer_seconds: float = 30.0,
    connections: int = 4,
    ping: bool = True,
) -> Engine:
    """An engine for a database that may not be there yet; nothing is connected.

    Statements that take longer than `answer_seconds` fail (PostgreSQL), and so do those that wait
    longer than `busy_seconds` for the lock of another writer (SQLite). `ping` has connections tried
    before each use (PostgreSQL). Raises LedgerError for a URL of another kind.
    """
    parsed = _parse(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    options: dict[str, Any] = {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": answer_seconds,
        "hide_parameters": True,
    }
    if sqlite:
        arguments: dict[str, Any] = {"timeout": busy_seconds}
    else:
        options["pool_pre_ping"] = ping
        arguments = {
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,  # milliseconds
        }
    try:
        engine = create_engine(parsed, connect_args=arguments, **options)
    except (ArgumentError, ImportError) as error:
        raise LedgerError(f"the database URL can't be used: {_line(error)}") from error
    if file := sqlite_file(engine):
        _prepare_sqlite(engine, file)
    else:
        _prepare_postgresql(engine, answer_seconds)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text of the error may hold the URL, and that a password.
        raise LedgerError("the database URL can't be read") from None
    kind = parsed.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        if not parsed.drivername.endswith(("postgresql", "postgres", "+psycopg")):
            raise LedgerError(f"the database driver is psycopg, not {parsed.drivername}")
        return parsed.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        if parsed.database in (None, "", ":memory:") or "mode" in parsed.query:
            raise LedgerError("a SQLite database URL needs the path of a file, and no mode")
        return parsed.set(drivername="sqlite")
    raise LedgerError(f"the database is sqlite:///… or postgresql://…, not {kind}")


def sqlite_file(engine: Engine) -> Path | None:
    """The file of a SQLite database, None for other databases."""
    if engine.dialect.name != "sqlite":
        return None
    return Path(engine.url.database or "")


def _prepare_sqlite(engine: Engine, file: Path) -> None:
    @event.listens_for(engine, "do_connect")
    def refuse_to_create(*_: object) -> None:
        # SQLite would begin an empty database in place of one that was moved away.
        if not file.exists():
            raise sqlite3.OperationalError(f"{file} is gone")

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, in `begin`
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a commit outlives a loss of power

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_SQLITE_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(engine: Engine, answer_seconds: float) -> None:
    # Shorter than our own patience, so that the server tells what was slow.
    milliseconds = round(answer_seconds * 800)

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: object, _record: object, arguments: list[Any], keywords: dict[str, Any]
    ) -> DeadlineConnection:
        connection = DeadlineConnection.connect(*arguments, **keywords)
        connection.answer_seconds = answer_seconds
        return connection

    @event.listens_for(engine, "connect")
    def set_up(connection: DeadlineConnection, _: object) -> None:
        connection.autocommit = True
        # Where a gateway vanishes in a transaction, its rows would block the others that bring
        # them from its spool.
        connection.execute(
            f"SET statement_timeout = {milliseconds};"
            f"SET lock_timeout = {milliseconds};"
            f"SET idle_in_transaction_session_timeout = {milliseconds}"
        )
        connection.autocommit = False


def writing(engine: Engine) -> Engine:
    """The same engine, for transactions that write: SQLite then locks at their start.

    One that began with a read could not go on to write when another one wrote meanwhile.
    """
    return engine.execution_options(**{_SQLITE_WRITES: True})


def migrate(engine: Engine, *, create: bool = True) -> None:
    """Makes the tables, or brings them up to date; only one process does at a time.

    With `create`, makes a SQLite file too, which only its owner can read. Raises LedgerError where
    that can't work, such as with the database of a newer version, and SQLAlchemy's
    OperationalError or OSError where it may work later.
    """
    file = sqlite_file(engine)
    if file is not None and create:
        _create_sqlite(file)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    try:
        with writing(engine).begin() as connection:
            if file is None:
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            _refuse_newer(connection)
            _lift_timeouts(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError:
        raise
    except DatabaseError as error:
        raise LedgerError(f"the database can't be used: {_line(error.orig)}") from error


def check_revision(engine: Engine) -> None:
    """Raises LedgerError if the tables are of a newer version than this code."""
    with engine.connect() as connection:
        _refuse_newer(connection)


def _create_sqlite(file: Path) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        raise LedgerError(f"the database {file} can't be used: {error.strerror}") from error


def _refuse_newer(connection: Connection) -> None:
    scripts = ScriptDirectory(str(_MIGRATIONS))
    ours = {script.revision for script in scripts.walk_revisions()}
    theirs = set(MigrationContext.configure(connection).get_current_heads()) - ours
    if theirs:
        raise LedgerError(
            f"the database is of a newer version than this gateway: it has revision "
            f"{', '.join(sorted(theirs))}, and {scripts.get_current_head()} is the newest known"
        )


def _lift_timeouts(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    if isinstance(driver, DeadlineConnection):
        driver.answer_seconds = MIGRATION_SECONDS
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # The pool must not keep a connection that would wait so long.
        connection.detach()


def _line(error: object) -> str:
    return " ".join(str(error).split())
