import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from gateway.ledger.database import sqlite_url
from tests.gateway.postgres import Postgres, postgres

__all__ = ["postgres"]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the event loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "ledger" / "ledger.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()
