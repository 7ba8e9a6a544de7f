from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import make_url

from tests.e2e.processes import Service, gateway, inference
from tests.gateway.postgres import Postgres, postgres  # noqa: F401
from tests.real_pict_rs.servers import REPOSITORIES, SERVERS, Kind, Server, missing, pict_rs

SECRETS = {"first": "secret-of-the-first", "second": "secret-of-the-second"}


@dataclass(frozen=True)
class Pair:
    """A gateway, and inference behind it."""

    gateway: Service
    inference: Service
    folder: Path

    def validator(self, client: str = "IPADDR", host: str = "127.0.0.1") -> str:
        """The URL that pict-rs is to be set up with."""
        port = self.gateway.address.rsplit(":", 1)[1]
        return f"http://{host}:{port}/api/v1/scan/{SECRETS.get(client, client)}"

    def decisions(self, **where: Any) -> list[sqlite3.Row]:
        """The decisions on record, from the oldest to the newest."""
        return decisions(self.folder, **where)


def decisions(folder: Path, **where: Any) -> list[sqlite3.Row]:
    condition = " AND ".join(f"{name} = ?" for name in where) or "1"
    with closing(sqlite3.connect(folder / "ledger.db", timeout=10)) as database:
        database.row_factory = sqlite3.Row
        statement = f"SELECT * FROM decisions WHERE {condition} ORDER BY seq"
        return database.execute(statement, tuple(where.values())).fetchall()


@pytest.fixture(scope="session")
def scoring() -> Iterator[Service]:
    with inference() as scoring:
        yield scoring


@pytest.fixture(scope="session")
def pair(scoring: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("gateway")
    secrets = ",".join(f"{name}:{secret}" for name, secret in SECRETS.items())
    # On a busy machine, no upload is to pass because its time is over; pict-rs waits for 30 s.
    flags = ("--client-secrets", secrets, "--time-budget", "25")
    with gateway(scoring.address, *flags, data_folder=folder) as service:
        yield Pair(service, scoring, folder)


@pytest.fixture(scope="module", params=SERVERS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each server that everything is tried with."""
    return _there(request.param)


@pytest.fixture(scope="module", params=(*SERVERS, *REPOSITORIES), ids=str)
def any_kind(request: pytest.FixtureRequest) -> Kind:
    """Each server, with each repository."""
    return _there(request.param)


def _there(kind: Kind) -> Kind:
    if reason := missing(kind):
        pytest.skip(reason)
    return kind


@pytest.fixture(scope="module")
def database(any_kind: Kind, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, if `any_kind` needs one."""
    if any_kind.repository != "postgres":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    url = make_url(server.new_database())
    return f"postgres://{url.username}@{quote(str(url.query['host']), safe='')}/{url.database}"


@pytest.fixture(scope="module")
def server(kind: Kind, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks the pair about each upload."""
    with pict_rs(kind, tmp_path_factory.mktemp("pict-rs"), pair.validator()) as server:
        yield server
