"""Which clients get embeddings from the real service."""

import socket
from pathlib import Path

import grpc
import pytest

from benchmarks.rehearsal.certificates import Authority
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from tests.e2e.processes import free_port, inference
from tests.e2e.test_pair import GOOD
from tests.e2e.test_scoring_service import CONCEPTS, OPTIONS, Bulk, Stub, failure, image

PLAIN = scoring_pb2.ScoringOptions(concepts=CONCEPTS)
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "EMBEDDINGS_NOT_ALLOWED")


@pytest.fixture(scope="module")
def own_address() -> str:
    """An address of this machine that is not loopback: who comes from it could be anybody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        address: str = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback ones")
    return address


def width(stub: Stub, options: scoring_pb2.ScoringOptions) -> int:
    """How many values the embedding has that comes back."""
    return len(stub.ScoreImage(image(GOOD, options), timeout=30).scores.views[0].embedding)


def test_without_certificates_only_the_own_machine_gets_them(own_address: str) -> None:
    port = free_port()
    with (
        inference(listen=f"0.0.0.0:{port}"),
        grpc.insecure_channel(f"127.0.0.1:{port}") as near,
        grpc.insecure_channel(f"{own_address}:{port}") as far,
    ):
        assert width(scoring_pb2_grpc.ScoringServiceStub(near), OPTIONS) == 128
        stub = scoring_pb2_grpc.ScoringServiceStub(far)
        assert failure(stub, image(GOOD)) == DENIED
        header = scoring_pb2.ScoreImagesHeader(options=OPTIONS)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ScoreImages(iter([Bulk(header=header)]), timeout=30))
        assert caught.value.code() is DENIED[0]
        assert width(stub, PLAIN) == 0


@pytest.mark.parametrize("verifies", [True, False])
def test_a_certificate_counts_if_it_was_verified(
    own_address: str, tmp_path: Path, verifies: bool
) -> None:
    authority = Authority("tests")
    server, client = (
        authority.issue("server", (own_address,)),
        authority.issue("client", (own_address,)),
    )
    (tmp_path / "server.pem").write_bytes(server.certificate)
    (tmp_path / "server.key").write_bytes(server.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    flags = ["--tls-certificate", f"{tmp_path}/server.pem", "--tls-key", f"{tmp_path}/server.key"]
    if verifies:
        flags += ["--tls-client-ca", f"{tmp_path}/ca.pem"]
    shown = grpc.ssl_channel_credentials(authority.pem, client.key, client.certificate)
    with (
        inference(*flags, listen=f"0.0.0.0:{free_port()}") as service,
        grpc.secure_channel(f"{own_address}:{service.address.rpartition(':')[2]}", shown) as far,
    ):
        stub = scoring_pb2_grpc.ScoringServiceStub(far)
        if verifies:
            assert width(stub, OPTIONS) == 128
        else:
            assert failure(stub, image(GOOD)) == DENIED


@pytest.mark.parametrize("setting", ["never", "always"])
def test_nobody_or_everybody(own_address: str, setting: str) -> None:
    port = free_port()
    with inference("--embeddings", setting, listen=f"0.0.0.0:{port}"):
        for host in ("127.0.0.1", own_address):
            with grpc.insecure_channel(f"{host}:{port}") as channel:
                stub = scoring_pb2_grpc.ScoringServiceStub(channel)
                if setting == "never":
                    assert failure(stub, image(GOOD)) == DENIED
                else:
                    assert width(stub, OPTIONS) == 128
