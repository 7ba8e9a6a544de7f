"""Certificates are replaced under a running service."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from benchmarks.rehearsal.certificates import Authority
from imagesafety.client import ConceptSet, ScoringClient, ScoringError, TlsFiles
from imagesafety.policy import Concept, Prompt
from tests.e2e.certificates import Secret, write_authority, write_issued
from tests.e2e.processes import inference, off_loop, wait_until
from tests.e2e.test_pair import GOOD

RED = ConceptSet([Concept("red", (Prompt("something red"),))])


async def chunks() -> AsyncIterator[bytes]:
    yield GOOD


async def is_answered(client: ScoringClient) -> bool:
    try:
        return bool((await client.score_image(chunks(), concepts=RED, timeout=10)).views)
    except ScoringError as error:
        if error.code is grpc.StatusCode.UNAVAILABLE:
            return False
        raise


def shown(address: str) -> str:
    """The name on the certificate that a new connection is shown; none is sent."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=10)
    [name] = x509.load_pem_x509_certificate(pem.encode()).subject
    return str(name.value)


@pytest.mark.parametrize("age", ["0", "1"])
async def test_new_files_hold_for_new_connections(tmp_path: Path, age: str) -> None:
    old, new = Authority("old"), Authority("new")
    for name, authority in (("old", old), ("new", new)):
        write_authority(authority, tmp_path, name)
        write_issued(authority, tmp_path, f"{name}-client")
    secret = Secret(tmp_path / "secret")
    secret.swap(old, old, "first")

    def client(address: str, trusts: str, shows: str) -> ScoringClient:
        ca, own = tmp_path / f"{trusts}.pem", tmp_path / f"{shows}-client"
        files = TlsFiles(ca, own.with_suffix(".pem"), own.with_suffix(".key"))
        return ScoringClient(address, files)

    service = inference(
        *("--tls-certificate", f"{secret.folder}/server.pem"),
        *("--tls-key", f"{secret.folder}/server.key"),
        *("--tls-client-ca", f"{secret.folder}/ca.pem"),
        *("--max-connection-age", age),
    )
    async with off_loop(service) as running:
        address = running.address
        assert shown(address) == "first"
        async with client(address, "old", "old") as before:
            assert await is_answered(before)

            secret.swap(old, old, "second")
            assert shown(address) == "second"
            assert await is_answered(before)

            secret.swap(new, new, "third")
            assert shown(address) == "third"
            if age == "0":  # else it is asked to connect anew, and knows the old CA only
                assert await is_answered(before)
        async with client(address, "new", "old") as stranger:
            assert not await is_answered(stranger)
        async with client(address, "new", "new") as known:
            assert await is_answered(known)

            broken = secret.folder / "..broken"
            broken.mkdir()
            write_issued(new, broken, "server")
            write_issued(new, broken, "other")
            (broken / "other.key").replace(broken / "server.key")
            write_authority(new, broken, "ca")
            secret.point(broken)
            for _ in range(3):
                assert shown(address) == "third"
            assert await is_answered(known)
        assert running.output().count("the old TLS files stay in force") == 1
        (secret.folder / "..data").unlink()
        assert shown(address) == "third"
        secret.swap(new, new, "fourth")
        assert shown(address) == "fourth"
        wait_until(lambda: "new TLS files are in force" in running.output(), "the log", 10)
