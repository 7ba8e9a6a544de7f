"""The gRPC server: its services, its options, and where it listens."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from imagesafety.v1 import scoring_pb2_grpc
from inference.health_service import HealthService
from inference.load_reports import LoadReports
from inference.orca import orca_pb2_grpc
from inference.service import ScoringService
from inference.serving_status import SERVICE_NAME
from inference.settings import Settings

_MAX_PENDING = 10_000  # calls that have come, and are not looked at yet

_LOOK_SECONDS, _QUIET_LOOKS = 0.25, 3  # after which a draining server is done
_LAST_WORDS_SECONDS = 3.0  # in which calls that are broken off are told so


class GrpcServer:
    """The services on one port, and how they stop together."""

    def __init__(
        self,
        settings: Settings,
        scoring: ScoringService,
        health_service: HealthService,
        load_reports: LoadReports,
    ) -> None:
        self._drain_seconds = settings.drain_seconds
        self._scoring = scoring
        self._health = health_service
        self._load_reports = load_reports
        self._server = grpc.aio.server(
            # Well over what the service itself lets in, and answers better than gRPC would: probes
            # and load reports must find room beside any number of calls that bring images.
            maximum_concurrent_rpcs=4 * settings.max_images + _MAX_PENDING,
            options=_options(settings),
        )
        scoring_pb2_grpc.add_ScoringServiceServicer_to_server(scoring, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health_service, self._server)
        orca_pb2_grpc.add_OpenRcaServiceServicer_to_server(load_reports, self._server)
        reflection.enable_server_reflection(
            (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        """Binds the address. Raises OSError."""
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            reason = str(error).partition(";")[0]
            raise OSError(f"cannot listen on {address}: {reason}") from error
        if bound == 0:
            raise OSError(f"cannot listen on {address}: is something else listening there?")

    async def start(self) -> None:
        """Begins to take calls."""
        await self._server.start()

    async def drain(self) -> None:
        """Takes no new call, and returns when the running ones are done, or out of time."""
        self._scoring.drain()
        self._load_reports.drain()
        await self._health.drain()
        grace = self._drain_seconds + _LAST_WORDS_SECONDS
        stopping = asyncio.create_task(self._server.stop(grace))
        done = asyncio.create_task(self._done())
        await asyncio.wait(
            (stopping, done), timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        self._scoring.break_off()  # as UNAVAILABLE; gRPC says CANCELLED now and then
        await asyncio.wait((stopping, done), return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        await self._server.stop(None)  # breaks off streams of other services that nobody ends
        await stopping

    async def _done(self) -> None:
        """Returns when no call brought images for a while, and the answers are on their way."""
        quiet = 0
        while quiet < _QUIET_LOOKS:
            await asyncio.sleep(_LOOK_SECONDS)
            quiet = 0 if self._scoring.calls else quiet + 1


def _options(settings: Settings) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Of a burst, gRPC would else end calls as CANCELLED, at random, from 1000 on.
        ("grpc.server.max_pending_requests", _MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
        ("grpc.so_reuseport", 0),  # two services on one port would be a mistake unnoticed
        # The client pings every 2 s to notice a replica that hangs; without this it is told off.
        # (gRPC calls the constant MIN_RECV_PING_INTERVAL_…, but this is its value.)
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if settings.max_connection_age:
        # Without a grace: with one, calls that run longer would be broken off.
        age = max(1, round(1000 * settings.max_connection_age))
        options.append(("grpc.max_connection_age_ms", age))
    return options
