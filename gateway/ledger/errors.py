"""What an error of a database is about: what it was given, or itself."""

from __future__ import annotations

import sqlite3

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

_BUSY = 0xFF & sqlite3.SQLITE_BUSY


def is_refusal(error: Exception) -> bool:
    """Whether the database can be used, and refuses what it was given."""
    if isinstance(error, DataError | IntegrityError | NotSupportedError):
        return True
    if isinstance(error, ProgrammingError | InterfaceError):
        # PostgreSQL's are about tables and rights, SQLite's about values that can't be bound.
        return isinstance(error.orig, sqlite3.Error)
    if isinstance(error, DBAPIError):
        return False
    return isinstance(error, StatementError | ValueError | TypeError | OverflowError)


def is_locked(error: Exception) -> bool:
    """Whether another writer of a SQLite database was in the way."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return isinstance(error, OperationalError) and code is not None and code & 0xFF == _BUSY


def reason(error: BaseException) -> str:
    """One line for people, without what SQLAlchemy says of itself."""
    source = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(source).split()) or type(source).__name__
