"""Certificates of the rehearsal are what TLS takes, and a service is told from its files."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from benchmarks.rehearsal.certificates import Authority, TlsFolder


def handshake(server: TlsFolder, client: TlsFolder, name: str) -> None:
    """Both sides of TLS in memory. Raises ssl.SSLError."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server.authorities)
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_cert_chain(server.certificate, server.key)
    calling = ssl.create_default_context(cafile=client.authorities)
    calling.load_cert_chain(client.certificate, client.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        calling.wrap_bio(down, up, server_hostname=name),
        serving.wrap_bio(up, down, server_side=True),
    )
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert all(side.version() for side in sides)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[TlsFolder, TlsFolder]:
    return TlsFolder(tmp_path / "server"), TlsFolder(tmp_path / "client")


@pytest.mark.parametrize("name", ["inference.rehearsal", "127.0.1.1"])
def test_both_sides_know_each_other(folders: tuple[TlsFolder, TlsFolder], name: str) -> None:
    authority = Authority("one")
    server, client = folders
    for folder in folders:
        folder.trust(authority)
    server.show(authority.issue("inference.rehearsal", ["127.0.1.1"]))
    client.show(authority.issue("gateway.rehearsal"))
    handshake(server, client, name)


def test_rotation_step_by_step(folders: tuple[TlsFolder, TlsFolder]) -> None:
    old, new = Authority("old"), Authority("new")
    server, client = folders
    for folder in folders:
        folder.trust(old)
    server.show(old.issue("inference.rehearsal"))
    client.show(old.issue("gateway.rehearsal"))
    for folder in folders:
        folder.trust(old, new)
        handshake(server, client, "inference.rehearsal")
    server.show(new.issue("inference.rehearsal"))
    handshake(server, client, "inference.rehearsal")
    client.show(new.issue("gateway.rehearsal"))
    handshake(server, client, "inference.rehearsal")
    for folder in folders:
        folder.trust(new)
        handshake(server, client, "inference.rehearsal")
    server.show(old.issue("inference.rehearsal"))
    with pytest.raises(ssl.SSLError):
        handshake(server, client, "inference.rehearsal")
