"""Opens the ledger's database, SQLite or PostgreSQL, and brings its tables up to date."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.conninfo import make_conninfo
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from gateway.ledger.deadline import DeadlineConnection
from gateway.ledger.errors import reason
from gateway.ledger.server_encoding import hold_all_text
from gateway.ledger.tables import decisions, metadata, override_changes

CONNECT_SECONDS = 2
OLDEST_POSTGRESQL = 10  # that the driver is made for
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
            # A database of SQL_ASCII names no encoding of its own, and psycopg then gives bytes.
            "client_encoding": "utf8",
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,  # milliseconds
        }
    try:
        engine = create_engine(parsed, connect_args=arguments, **options)
        if not sqlite:
            _check_options(engine)
    except (ArgumentError, ImportError, ValueError, TypeError, psycopg.Error) as error:
        raise LedgerError(f"the database URL can't be used: {reason(error)}") from error
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
        if "@" in (parsed.host or ""):  # which has the end of the password
            raise LedgerError("the database URL can't be read: write an @ in the password as %40")
        return parsed.set(drivername="postgresql+psycopg")
    if kind == "sqlite":
        if parsed.database in (None, "", ":memory:") or "mode" in parsed.query:
            raise LedgerError("a SQLite database URL needs the path of a file, and no mode")
        return parsed.set(drivername="sqlite")
    raise LedgerError(f"the database is sqlite:///… or postgresql://…, not {kind}")


def _check_options(engine: Engine) -> None:
    """Raise psycopg.ProgrammingError for an unknown option in the URL."""
    _, options = engine.dialect.create_connect_args(engine.url)
    ours = ("context", "autocommit", "prepare_threshold", "row_factory", "cursor_factory")
    make_conninfo(**{name: value for name, value in options.items() if name not in ours})


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
        _refuse_old(connection)
        hold_all_text(connection)
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


def _refuse_old(connection: DeadlineConnection) -> None:
    version = connection.info.server_version
    if version < OLDEST_POSTGRESQL * 10_000:
        name = connection.info.parameter_status("server_version") or version
        connection.close()
        raise LedgerError(f"PostgreSQL {name} is too old; {OLDEST_POSTGRESQL} or newer is expected")


def writing(engine: Engine) -> Engine:
    """The same engine, for transactions that write: SQLite then locks at their start.

    One that began with a read could not go on to write when another one wrote meanwhile.
    """
    return engine.execution_options(**{_SQLITE_WRITES: True})


def migrate(engine: Engine, *, create: bool = True) -> None:
    """Make the tables, bring them up to date, and make those again that are gone.

    Only one process does at a time. With `create`, make a SQLite file too, which only its owner
    can read. Raises LedgerError where that can't work, such as with the database of a newer
    version, and SQLAlchemy's OperationalError or OSError where it may work later.
    """
    file = sqlite_file(engine)
    if file is not None and create:
        _create_sqlite(file)
    try:
        with writing(engine).begin() as connection:
            if file is None:
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            _refuse_newer(connection)
            _lift_timeouts(connection)
            _bring_up_to_date(connection)
    except OperationalError:
        raise
    except (DatabaseError, CommandError) as error:
        raise LedgerError(f"the database can't be used: {reason(error)}") from error


def _bring_up_to_date(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    revisions = MigrationContext.configure(connection).get_current_heads()
    there = set(inspect(connection).get_table_names()) & set(metadata.tables)
    if not there and revisions:
        command.stamp(config, "base", purge=True)
    elif there and len(revisions) != 1:
        # Somebody emptied the table of revisions, or restored a backup into it.
        _refuse_others(connection)
        command.stamp(config, "head", purge=True)
    command.upgrade(config, "head")
    metadata.create_all(connection)
    _refuse_others(connection)
    if connection.dialect.name == "postgresql":
        for table in (decisions, override_changes):
            _advance_sequence(connection, table)


def _advance_sequence(connection: Connection, table: Table) -> None:
    """Number new rows behind the present ones: a backup may be restored without its sequences."""
    name = connection.scalar(select(func.pg_get_serial_sequence(table.name, "seq")))
    last = connection.scalar(select(func.max(table.c.seq)))
    if name is None or last is None:
        return
    if connection.scalar(text(f"SELECT last_value FROM {name}")) < last:  # noqa: S608
        connection.execute(select(func.setval(name, last)))


def _refuse_others(connection: Connection) -> None:
    """Raise LedgerError for a table of another program that has the name of one of ours."""
    inspector = inspect(connection)
    for name in set(inspector.get_table_names()) & set(metadata.tables):
        found = {column["name"] for column in inspector.get_columns(name)}
        columns = [column.name for column in metadata.tables[name].columns]
        if missing := [column for column in columns if column not in found]:
            raise LedgerError(
                f"the table {name!r} in the database has no {', '.join(missing)}: it is another "
                "program's, or alembic_version has another revision than the tables; a database "
                "or schema of its own is expected"
            )


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
