"""Writes rows to the database and finds them there. Blocks; belongs in threads."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from gateway.ledger.database import (
    LedgerError,
    check_revision,
    migrate,
    open_engine,
    sqlite_file,
    writing,
)
from gateway.ledger.errors import (
    is_locked,
    is_refusal,
    is_without_tables,
    may_be_of_the_session,
    reason,
)
from gateway.ledger.file_place import FilePlace
from gateway.ledger.insert import Insert
from gateway.ledger.outcome import LedgerUnavailableError
from gateway.ledger.policy_text import PolicyText
from gateway.ledger.rows import record_of
from gateway.ledger.tables import decisions, deliveries, policies
from gateway.webhook_payload import event_of, payload_of

BUSY_SECONDS = 0.2  # for SQLite's lock; the spool takes the rows then
ANSWER_SECONDS = 5.0
PROBE_BYTES = 64 * 1024
TRY_AGAIN_SECONDS = 1.0  # a connection that breaks faster than this was broken before

T = TypeVar("T")
Row = Mapping[str, Any]

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that the database does not take, whatever is tried."""

    row: Row
    why: str


class Store:
    """The ledger's tables.

    `write` and `prepare` are for one thread; the others for any.
    """

    def __init__(self, url: str, *, webhooks: bool) -> None:
        """Connects to nothing yet. Raises LedgerError for a URL that can't be used."""
        engine = open_engine(
            url, busy_seconds=BUSY_SECONDS, answer_seconds=ANSWER_SECONDS, connections=1, ping=False
        )
        self._writer = writing(engine)
        self._readers = open_engine(url, connections=8)
        self._webhooks = webhooks
        self._inserts = {
            table: Insert(table, engine) for table in (decisions, deliveries, policies)
        }
        self._place = FilePlace(sqlite_file(engine))
        self._was_ready = False
        self.ready = False

    def prepare(self) -> None:
        """Make the tables if need be, also those that are gone. Raises LedgerUnavailableError.

        A SQLite file that goes away later is not made anew: it may come back.
        """
        try:
            migrate(self._readers, create=not self._was_ready)
            self._place.remember()
        except Exception as error:  # a driver says what it dislikes in any of them
            self.close()  # they may be of a file that is replaced meanwhile
            raise LedgerUnavailableError(reason(error)) from error
        self.ready = self._was_ready = True

    def write(self, rows: Sequence[Row]) -> list[Refused]:
        """Writes what is not there yet, in one transaction; returns what the database refuses.

        Raises LedgerUnavailableError; then some may be written.
        """
        return self._write([(row, self._delivery(row)) for row in rows])

    def write_policies(self, texts: Sequence[PolicyText]) -> None:
        """Writes what is not there yet. Raises LedgerUnavailableError."""
        rows = [
            {"digest": text.digest, "text": text.text, "first_used": text.first_used}
            for text in texts
        ]
        try:
            self._commit(lambda connection: self._inserts[policies](connection, rows))
        except LedgerUnavailableError:
            raise
        except Exception as error:
            log.error("the database refuses a policy's text: %s", reason(error))

    def probe(self) -> None:
        """Finds out by writing whether the database can be written to.

        It takes room that a row would not find on a full disk, and gives it back. Raises
        LedgerUnavailableError.
        """
        digest = f"probe {secrets.token_hex(8)}"
        row = {"digest": digest, "text": secrets.token_hex(PROBE_BYTES // 2), "first_used": 0}
        self._commit(lambda connection: self._inserts[policies](connection, [row]))
        statement = delete(policies).where(policies.c.digest == digest)
        self._commit(lambda connection: connection.execute(statement))

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one transaction; twice where another writer of SQLite was in the way.

        Raises LedgerUnavailableError, and what `work` raises.
        """
        self._refuse_elsewhere()
        try:
            result = self._transaction(work)
        except SQLAlchemyError as error:
            if is_refusal(error):
                raise
            raise self._unavailable(error) from error
        self._refuse_elsewhere()  # or it would be confirmed, and never be found again
        return result

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        try:
            with _begun(self._readers) as connection:
                return work(connection)
        except DBAPIError as error:
            if not is_locked(error):
                raise
        with _begun(writing(self._readers)) as connection:
            return work(connection)

    def elsewhere(self) -> str | None:
        """The trouble with the place of a SQLite file, if there is any."""
        if not self._was_ready or self._place.is_ours():
            return None
        return f"{self._place.file} is gone or empty, or another file is there"

    def _refuse_elsewhere(self) -> None:
        if (trouble := self.elsewhere()) is not None:
            raise LedgerUnavailableError(trouble)

    def close(self) -> None:
        """Closes every connection."""
        self._writer.dispose()
        self._readers.dispose()

    def _delivery(self, row: Row) -> Row | None:
        if not self._webhooks:
            return None
        try:
            record = record_of(row)
            event = event_of(record)
            payload = payload_of(record) if event is not None else ""
        except Exception:
            log.exception("no webhook for decision %s", row["id"])
            return None
        if event is None:
            return None
        return {
            "decision_id": record.id,
            "event": event,
            "payload": payload,
            "at": record.at,
            "attempts": 0,
            "due": record.at,
            "delivered": None,
            "last_error": "",
        }

    def _write(self, items: Sequence[tuple[Row, Row | None]]) -> list[Refused]:
        """Writes rows with their deliveries; looks for those that are refused by halving."""
        if not items:
            return []
        rows = [row for row, _ in items]
        events = [delivery for _, delivery in items if delivery is not None]

        def insert(connection: Connection) -> None:
            self._inserts[decisions](connection, rows)
            if events:
                self._inserts[deliveries](connection, events)

        try:
            self._commit(insert)
        except LedgerUnavailableError:
            raise
        except Exception as error:
            if middle := len(items) // 2:
                return self._write(items[:middle]) + self._write(items[middle:])
            self._check_revision()
            return [Refused(rows[0], reason(error))]
        return []

    def _commit(self, work: Callable[[Connection], object]) -> None:
        """Runs `work` in a transaction that writes.

        Raises LedgerUnavailableError, or what the database says where it refuses what it got.
        """
        self.check_place()
        started = time.monotonic()
        try:
            try:
                self._begin(work)
            except DBAPIError as error:
                fresh = time.monotonic() - started > TRY_AGAIN_SECONDS
                if not error.connection_invalidated or fresh:
                    raise
                self._begin(work)
        except LedgerUnavailableError:
            raise
        except Exception as error:
            if is_refusal(error):
                raise
            raise self._unavailable(error) from error
        self.check_place()

    def _begin(self, work: Callable[[Connection], object]) -> None:
        with _begun(self._writer) as connection:
            work(connection)

    def _unavailable(self, error: Exception) -> LedgerUnavailableError:
        """The error to raise; marks missing tables as to be made again."""
        if is_without_tables(error):
            self.ready = False
        if may_be_of_the_session(error):
            self.close()
        return LedgerUnavailableError(reason(error))

    def check_place(self) -> None:
        """Lets go of a SQLite file that was moved away or replaced.

        Raises LedgerUnavailableError then; `prepare` takes what is there. For the one thread.
        """
        if (trouble := self.elsewhere()) is not None:
            self.close()
            self.ready = False
            raise LedgerUnavailableError(trouble)

    def _check_revision(self) -> None:
        """Raises LedgerUnavailableError where rows are refused because the tables are not ours."""
        try:
            check_revision(self._readers)
        except (LedgerError, SQLAlchemyError) as error:
            raise LedgerUnavailableError(reason(error)) from error


@contextmanager
def _begun(engine: Engine) -> Iterator[Connection]:
    """A transaction. Raises LedgerUnavailableError for what goes wrong before it begins.

    No error of connecting is about what is to be written, of whatever type it is.
    """
    try:
        connection = engine.connect()
    except OperationalError:
        raise
    except Exception as error:
        raise LedgerUnavailableError(reason(error)) from error
    with connection, connection.begin():
        yield connection
