from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ledger.database import sqlite_url
from tests.gateway.postgres import postgres

__all__ = ["postgres"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "ledger.sqlite")
    url: str = request.getfixturevalue("postgres").new_database()
    return url
