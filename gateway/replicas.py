"""Which inference replicas are behind a gRPC target, and how each of them is.

gRPC doesn't tell which addresses a channel has found, so the target is resolved here once more.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.health import PROBE_SECONDS
from imagesafety.client import TlsFiles
from imagesafety.policy import Policy
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

MOST_REPLICAS = 64  # that are asked
_DEFAULT_PORT = 443  # gRPC's own

_HOST_AND_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::(\d+))?")


@dataclass(frozen=True)
class Replica:
    """One address behind a target: "ok" or what is wrong, and what it says that it runs."""

    address: str
    state: str
    model: str = ""
    backend: str = ""


class UnresolvedError(Exception):
    """A target's addresses can't be found out; the message says why."""


async def addresses_of(target: str) -> Sequence[str]:
    """The addresses behind a gRPC target, each a target itself. Raises UnresolvedError.

    Names are resolved as the system does. What only gRPC can resolve (dns: with a server of its
    own, other schemes) is one address: itself.
    """
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("ipv4", "ipv6"):
        return [f"{scheme}:{address}" for address in rest.split(",") if address]
    if scheme == "dns" and colon:
        server, slash, name = rest.removeprefix("//").partition("/")
        if rest.startswith("//") and (server or not slash):
            return [target]
        return await _resolved(name if rest.startswith("//") else rest)
    if _HOST_AND_PORT.fullmatch(target):
        return await _resolved(target)
    return [target]


async def _resolved(name: str) -> Sequence[str]:
    match = _HOST_AND_PORT.fullmatch(name)
    if match is None:
        raise UnresolvedError(f"{name!r} is no host and port")
    host, port = match[1] or match[2], int(match[3] or _DEFAULT_PORT)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise UnresolvedError(f"{host} is not resolved within {PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise UnresolvedError(f"{host} can't be resolved: {error.strerror or error}") from error
    return list(dict.fromkeys(_target(family, address[0], port) for family, *_, address in found))


def _target(family: int, host: str | int, port: int) -> str:
    return f"ipv6:[{host}]:{port}" if family == socket.AF_INET6 else f"ipv4:{host}:{port}"


class Replicas:
    """Asks every replica behind a target how it is."""

    def __init__(self, target: str, tls: TlsFiles | None = None) -> None:
        self._target, self._tls = target, tls

    async def check(self, policy: Policy) -> Sequence[Replica]:
        """Every replica, by its address; one that `policy` is not for is not well either."""
        try:
            addresses = await addresses_of(self._target)
            credentials = self._tls.credentials() if self._tls is not None else None
        except (UnresolvedError, OSError) as error:
            return [Replica(self._target, str(error))]
        asked = sorted(addresses)[:MOST_REPLICAS]
        return await asyncio.gather(*(self._ask(one, credentials, policy) for one in asked))

    async def _ask(
        self, address: str, credentials: grpc.ChannelCredentials | None, policy: Policy
    ) -> Replica:
        shown = address.removeprefix("ipv4:").removeprefix("ipv6:")
        async with self._channel(address, credentials) as channel:
            try:
                health, described = await asyncio.gather(
                    health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                        health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS
                    ),
                    scoring_pb2_grpc.ScoringServiceStub(channel).DescribeModel(
                        scoring_pb2.DescribeModelRequest(), timeout=PROBE_SECONDS
                    ),
                )
            except grpc.aio.AioRpcError as error:
                return Replica(shown, f"{error.code().name}: {error.details()}")
        model = described.model
        state = "ok"
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            state = "it says that it can't score now"
        elif mismatch := policy.mismatch(model.name, model.weights_digest):
            state = mismatch
        return Replica(shown, state, model.name, model.backend)

    def _channel(
        self, address: str, credentials: grpc.ChannelCredentials | None
    ) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(address)
        # The certificate is for the name in the target, not for the address that it resolves to.
        named = _HOST_AND_PORT.fullmatch(self._target.removeprefix("dns:").lstrip("/"))
        options = (("grpc.ssl_target_name_override", named[1] or named[2]),) if named else ()
        return grpc.aio.secure_channel(address, credentials, options=options)
