"""How calls are spread over replicas, and what of grpcio that relies on."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.rehearsal.certificates import Authority, TlsFolder
from benchmarks.rehearsal.name_server import name_server
from imagesafety.channel import SERVICE_NAME
from imagesafety.client import ScoringClient, ScoringError, TlsFiles
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from tests.e2e.processes import free_port
from tests.e2e.scripted_inference import ScriptedInference, full

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Replica:
    """A server whose model is named as it is."""

    name: str
    address: str
    health: health.aio.HealthServicer
    server: grpc.aio.Server


@contextlib.asynccontextmanager
async def replica(
    name: str,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
    max_age: int = 0,
) -> AsyncIterator[Replica]:
    server = grpc.aio.server(options=[("grpc.max_connection_age_ms", max_age)] if max_age else [])
    model = scoring_pb2.ModelIdentity(name=name)
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(ScriptedInference(full, model), server)
    service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    await service.set(SERVICE_NAME, SERVING)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield Replica(name, f"{address.rpartition(':')[0]}:{port}", service, server)
    finally:
        await server.stop(0)


def client_of(*replicas: Replica) -> ScoringClient:
    return ScoringClient("ipv4:" + ",".join(one.address for one in replicas))


async def who_answers(client: ScoringClient, calls: int = 60) -> Counter[str]:
    answers: Counter[str] = Counter()
    for _ in range(calls):
        description = await client.describe_model(timeout=10)
        answers[description.model.name] += 1
    return answers


async def until_answers(client: ScoringClient, *names: str) -> None:
    """Returns when calls are answered by all of these, and nobody else."""
    async with asyncio.timeout(30):
        while set(await who_answers(client, 12)) != set(names):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_calls_are_spread_evenly_over_all_addresses() -> None:
    async with (
        replica("a") as a,
        replica("b") as b,
        replica("c") as c,
        client_of(a, b, c) as client,
    ):
        await until_answers(client, "a", "b", "c")
        assert all(15 <= count <= 25 for count in (await who_answers(client)).values())


async def test_a_replica_that_says_so_gets_no_calls_until_it_is_well_again() -> None:
    async with replica("a") as a, replica("b") as b, client_of(a, b) as client:
        await until_answers(client, "a", "b")
        await a.health.set(SERVICE_NAME, NOT_SERVING)
        await until_answers(client, "b")
        assert await who_answers(client) == {"b": 60}
        await a.health.set(SERVICE_NAME, SERVING)
        await until_answers(client, "a", "b")


async def test_a_call_fails_at_once_when_no_replica_is_well() -> None:
    async with replica("a") as a, ScoringClient(a.address) as client:
        await until_answers(client, "a")
        await a.health.set(SERVICE_NAME, NOT_SERVING)
        with pytest.raises(ScoringError) as caught:
            await who_answers(client, 10**6)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_the_death_of_a_replica_costs_no_later_call() -> None:
    async with replica("a") as a, replica("b") as b, client_of(a, b) as client:
        await until_answers(client, "a", "b")
        await b.server.stop(0)
        assert await who_answers(client) == {"a": 60}


async def test_a_name_is_resolved_again_when_connections_age() -> None:
    """New replicas are found, and no call fails while connections are renewed."""
    port, dns_port = free_port(), free_port()
    async with (
        name_server("replicas.test", "127.0.0.1", dns_port) as names,
        replica("a", f"127.0.1.1:{port}", max_age=500),
        replica("b", f"127.0.1.2:{port}", max_age=500),
        ScoringClient(f"dns://127.0.0.1:{dns_port}/replicas.test:{port}") as client,
    ):
        names.addresses = ("127.0.1.1",)
        await until_answers(client, "a")
        names.addresses = ("127.0.1.1", "127.0.1.2")
        await until_answers(client, "a", "b")
        names.addresses = ("127.0.1.2",)
        await until_answers(client, "b")


def server_credentials(authority: Authority) -> grpc.ServerCredentials:
    pair = authority.issue("localhost", ("127.0.0.1",))
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], authority.pem, require_client_auth=True
    )


async def test_changed_certificates_are_taken_while_calls_go_on(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    folder = TlsFolder(tmp_path)
    folder.trust(old)
    folder.show(old.issue("client"))
    files = TlsFiles(folder.authorities, folder.certificate, folder.key)
    port = free_port()
    address = f"127.0.0.1:{port}"
    async with contextlib.AsyncExitStack() as stack:
        first = contextlib.AsyncExitStack()
        await stack.enter_async_context(first)
        await first.enter_async_context(replica("old", address, server_credentials(old)))
        client = await stack.enter_async_context(ScoringClient(address, files))
        await until_answers(client, "old")

        folder.certificate.write_text("no certificate")  # half of a change, or a mistake
        assert await who_answers(client, 30) == {"old": 30}
        folder.trust(old, new)
        folder.show(new.issue("client"))
        assert await who_answers(client, 30) == {"old": 30}  # where the new ones are not known yet

        await first.aclose()
        await stack.enter_async_context(replica("new", address, server_credentials(new)))
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ScoringError):
                    assert await who_answers(client, 1) == {"new": 1}
                    break
                await asyncio.sleep(0.05)
