from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stored.servers import S3Server, SftpServer, s3_server, sftp_server


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[SftpServer]:
    with sftp_server(tmp_path / "sftp") as server:
        yield server
