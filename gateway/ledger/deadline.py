"""A PostgreSQL connection that never waits for ever."""

from __future__ import annotations

from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

T = TypeVar("T")


class DeadlineConnection(psycopg.Connection[TupleRow]):
    """Gives up, and closes, when the server doesn't answer within `answer_seconds`.

    The server's own timeouts don't help where the server hangs or is cut off. Each statement and
    each commit has the whole time.
    """

    answer_seconds: float = 30.0

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As in psycopg. Raises psycopg.OperationalError when the time is up."""
        if timeout is None:
            timeout = self.answer_seconds
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.errors._WaitTimeout as error:
            # Whatever still arrives belongs to nothing: only a new connection is in a known state.
            self.close()
            message = f"the database did not answer within {timeout:g} seconds"
            raise psycopg.OperationalError(message) from error
