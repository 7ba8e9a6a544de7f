"""The subject of a database's error: the row that it was given, or the database itself."""

from __future__ import annotations

import sqlite3

import psycopg
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    StatementError,
)

_GONE = ("42P01", "42703", "3F000")  # a table, column or schema is missing
_TAKEN = "23505"
_GONE_IN_SQLITE = ("no such table", "no such column", "has no column")
_EXPECTED = {
    "3F000": "a schema is expected that is in the role's search_path",
    "25006": "a database that can be written to is expected",
    "42501": "the gateway's role needs CREATE and USAGE on a schema, with tables of its own",
}


def is_refusal(error: Exception) -> bool:
    """True if the database can be used, and refuses the row that it was given."""
    if getattr(getattr(error, "orig", None), "sqlstate", None) == _TAKEN:
        # Rows that are there already are left alone: it is a number that is taken, see below.
        return False
    if isinstance(error, DataError | IntegrityError):
        return True
    if isinstance(error, ProgrammingError | InterfaceError | NotSupportedError):
        # PostgreSQL's are about tables and rights, SQLite's about values that can't be bound.
        return isinstance(error.orig, sqlite3.Error)
    if isinstance(error, DBAPIError):
        return False
    return isinstance(error, StatementError | ValueError | TypeError | OverflowError)


def is_locked(error: Exception) -> bool:
    """True if another writer of a SQLite database was in the way."""
    return isinstance(error, OperationalError) and _sqlite_code(error.orig) == sqlite3.SQLITE_BUSY


def is_without_tables(error: Exception) -> bool:
    """True if tables are missing or not as expected: somebody removed them.

    Or restored them from a backup without the numbers for their next rows.
    """
    source = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(source, psycopg.Error):
        return source.sqlstate in (*_GONE, _TAKEN)
    return isinstance(source, sqlite3.Error) and any(
        words in str(source) for words in _GONE_IN_SQLITE
    )


def may_be_of_the_session(error: Exception) -> bool:
    """True if a new connection may be without it.

    Changes of a role or database hold for those, and SQLite opens a file only to read where it
    may not write at the time.
    """
    source = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(source, sqlite3.Error):
        return _sqlite_code(source) == sqlite3.SQLITE_READONLY
    return isinstance(source, psycopg.Error) and source.sqlstate in (*_GONE, *_EXPECTED)


def _sqlite_code(error: object) -> int:
    """The primary result code of an error of SQLite (sqlite.org/rescode.html); 0 of another."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def reason(error: BaseException) -> str:
    """One line for people, without what SQLAlchemy says of itself."""
    source = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(source)
    if isinstance(source, psycopg.Error):
        text = source.diag.message_primary or text  # without the statement
        if expected := _EXPECTED.get(source.sqlstate or ""):
            text = f"{text}; {expected}"
    text, name = " ".join(text.split()), type(source).__name__
    if type(source).__module__ != "builtins" or isinstance(source, OSError):
        return text or name
    return f"{name}: {text}" if text else name  # an error inside the driver, whose text says little
