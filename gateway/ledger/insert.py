"""Fast INSERT statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.tables import decisions


class Insert:
    """An INSERT that leaves alone what is there, compiled once.

    The values go to the driver as they are, which costs half of what SQLAlchemy's types would.
    """

    def __init__(self, table: Table, engine: Engine) -> None:
        module: Any = postgresql if engine.dialect.name == "postgresql" else sqlite
        key = "id" if table is decisions else next(iter(table.primary_key.columns)).name
        names = [column.name for column in table.columns if column.name != "seq"]
        statement = module.insert(table).values(dict.fromkeys(names))
        compiled = statement.on_conflict_do_nothing(index_elements=[key]).compile(
            dialect=engine.dialect
        )
        self._sql = str(compiled)
        self._positions: list[str] | None = compiled.positiontup

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts the rows that are not there yet; each has a value for every column but `seq`."""
        parameters: Any = list(rows)
        if self._positions is not None:
            parameters = [tuple(row[name] for name in self._positions) for row in rows]
        # One row is an execute, for which psycopg needs no pipeline.
        connection.exec_driver_sql(self._sql, parameters if len(rows) > 1 else parameters[0])
