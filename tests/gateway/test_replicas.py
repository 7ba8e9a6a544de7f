"""Each replica behind the target is found and asked, wherever gRPC would find it."""

import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gateway.replicas import Replica, Replicas, UnresolvedError, addresses_of
from imagesafety.policy_file import find_policy, load_policy
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from tests.e2e.processes import free_port
from tests.e2e.scripted_inference import MODEL, ScriptedInference, full

DEMO = load_policy(find_policy("demo"))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.asynccontextmanager
async def replica(
    status: int,
    model: scoring_pb2.ModelIdentity = MODEL,
) -> AsyncIterator[int]:
    """A replica that says this of its health; yields its port."""
    server = grpc.aio.server()
    service = health.aio.HealthServicer()
    await service.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(ScriptedInference(full, model), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def test_every_replica_is_asked() -> None:
    other = scoring_pb2.ModelIdentity(name="another", weights_digest="sha256:1", backend="b")
    async with (
        replica(SERVING) as well,
        replica(NOT_SERVING) as ill,
        replica(SERVING, other) as odd,
    ):
        gone = free_port()
        target = ",".join(f"127.0.0.1:{port}" for port in (well, ill, odd, gone))
        found = await Replicas(f"ipv4:{target}").check(DEMO)
    by_port = {int(one.address.rpartition(":")[2]): one for one in found}
    assert by_port[well] == Replica(f"127.0.0.1:{well}", "ok", "demo", "scripted")
    assert by_port[ill].state == "it says that it can't score now"
    assert "another" in by_port[odd].state
    assert by_port[gone].state.startswith("UNAVAILABLE: ")
    assert len(found) == 4


async def test_a_name_that_is_none_is_told() -> None:
    [only] = await Replicas("dns:///replica.invalid:50051").check(DEMO)
    assert (only.address, only.state != "ok") == ("dns:///replica.invalid:50051", True)
    with pytest.raises(UnresolvedError):
        await addresses_of("dns:///a:b:c")


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("127.0.0.1:50051", ["ipv4:127.0.0.1:50051"]),
        ("[::1]:50051", ["ipv6:[::1]:50051"]),
        ("dns:127.0.0.1:1", ["ipv4:127.0.0.1:1"]),
        ("dns:///127.0.0.1:1", ["ipv4:127.0.0.1:1"]),
        ("dns:///127.0.0.1", ["ipv4:127.0.0.1:443"]),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", ["ipv4:127.0.0.1:1", "ipv4:127.0.0.2:2"]),
        ("ipv6:[::1]:1,[::1]:2", ["ipv6:[::1]:1", "ipv6:[::1]:2"]),
        ("unix:/run/inference", ["unix:/run/inference"]),
        ("dns://127.0.0.1:5953/name:1", ["dns://127.0.0.1:5953/name:1"]),
    ],
)
async def test_the_addresses_of_a_target(target: str, addresses: list[str]) -> None:
    assert await addresses_of(target) == addresses
