from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.admin.admin_port import AdminPort, admin_port
from tests.gateway.postgres import postgres

__all__ = ["postgres"]


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[AdminPort]:
    """An admin port without a token."""
    async with admin_port(tmp_path) as running:
        yield running


@pytest.fixture
async def local(port: AdminPort) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody on this machine."""
    async with port.caller() as caller:
        yield caller
