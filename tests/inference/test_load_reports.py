"""How gRPC's own client spreads calls by the reports of `LoadReports`."""

import asyncio
import contextlib
import json
from collections import Counter, deque
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from inference.load import LoadReport
from inference.load_reports import LoadReports
from inference.orca import orca_pb2, orca_pb2_grpc

NAME = "imagesafety.v1.ScoringService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SPREADING = {
    "loadBalancingConfig": [
        {
            "weighted_round_robin": {
                "enableOobLoadReport": True,
                "oobReportingPeriod": "0.1s",
                "blackoutPeriod": "0.2s",
                "weightExpirationPeriod": "2s",
                "weightUpdatePeriod": "0.1s",
                "errorUtilizationPenalty": 1.0,
            }
        }
    ],
    "healthCheckConfig": {"serviceName": NAME},
}


class Replica(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers with its name, and reports the load that it is told to."""

    def __init__(self, name: str) -> None:
        self.name, self.load = name, LoadReport(0.0, 0.0, 0.0, 0.0, 0.0)
        self.health = health.aio.HealthServicer()
        self.reports = LoadReports(lambda: self.load)
        self.server = grpc.aio.server()
        scoring_pb2_grpc.add_ScoringServiceServicer_to_server(self, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        orca_pb2_grpc.add_OpenRcaServiceServicer_to_server(self.reports, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def reports_load(self, utilisation: float, scored: float = 50.0, refused: float = 0.0) -> None:
        self.load = LoadReport(utilisation, scored, refused, 0.0, 0.0)

    async def DescribeModel(  # noqa: N802
        self, request: scoring_pb2.DescribeModelRequest, context: object
    ) -> scoring_pb2.DescribeModelResponse:
        identity = scoring_pb2.ModelIdentity(name=self.name)
        return scoring_pb2.DescribeModelResponse(model=identity)

    ScoreImage = ScoreImages = None  # type: ignore[assignment]


class Fleet:
    """Two replicas, and a client that makes one call after the other."""

    def __init__(self, replicas: list[Replica], channel: grpc.aio.Channel) -> None:
        self.replicas = replicas
        self._stub = scoring_pb2_grpc.ScoringServiceStub(channel)

    async def shares(self, a: tuple[float, float]) -> None:
        """Returns when the first one gets a part of the last 150 calls that is in the range."""
        last: deque[str] = deque(maxlen=150)
        async with asyncio.timeout(60):
            while len(last) < 150 or not a[0] <= Counter(last)["a"] / 150 <= a[1]:
                request = scoring_pb2.DescribeModelRequest()
                last.append(
                    (await self._stub.DescribeModel(request, wait_for_ready=True)).model.name
                )


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        replicas = [Replica(name) for name in "ab"]
        for replica in replicas:
            await replica.server.start()
            stack.push_async_callback(replica.server.stop, None)
            await replica.health.set(NAME, SERVING)
        target = "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
        options = [("grpc.service_config", json.dumps(SPREADING))]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(target, options=options)
        )
        yield Fleet(replicas, channel)


async def test_twice_the_utilisation_gets_half_the_calls(fleet: Fleet) -> None:
    a, b = fleet.replicas
    a.reports_load(0.4)
    b.reports_load(0.8)
    await fleet.shares((0.62, 0.72))
    a.reports_load(0.8)
    b.reports_load(0.4)
    await fleet.shares((0.28, 0.38))


async def test_who_has_nothing_to_report_gets_the_mean(fleet: Fleet) -> None:
    a, b = fleet.replicas
    a.reports_load(0.4)
    b.reports_load(2.0)
    await fleet.shares((0.78, 0.88))
    b.reports_load(0.0, scored=0.0)
    # What it reported before is forgotten after weightExpirationPeriod only.
    await fleet.shares((0.45, 0.55))


async def test_who_refuses_most_calls_gets_few(fleet: Fleet) -> None:
    a, b = fleet.replicas
    a.reports_load(0.8)
    b.reports_load(1.0, scored=0.01, refused=500.0)
    await fleet.shares((0.88, 0.98))


async def test_who_is_not_serving_gets_no_calls(fleet: Fleet) -> None:
    await fleet.shares((0.4, 0.6))
    await fleet.replicas[1].health.set(NAME, NOT_SERVING)
    await fleet.shares((1.0, 1.0))
    await fleet.replicas[1].health.set(NAME, SERVING)
    await fleet.shares((0.4, 0.6))


async def test_reports_come_at_once_and_again_and_end_with_the_service(fleet: Fleet) -> None:
    replica = fleet.replicas[0]
    replica.reports_load(0.5, scored=20.0, refused=2.0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}") as channel:
        stub = orca_pb2_grpc.OpenRcaServiceStub(channel)
        request = orca_pb2.OrcaLoadReportRequest(report_interval=Duration(nanos=1))
        call = stub.StreamCoreMetrics(request, timeout=30)
        for _ in range(3):
            report = await call.read()
            assert isinstance(report, orca_pb2.OrcaLoadReport)
            assert (report.application_utilization, report.rps_fractional) == (0.5, 20.0)
            assert report.eps == 2.0
        slow = stub.StreamCoreMetrics(
            orca_pb2.OrcaLoadReportRequest(report_interval=Duration(seconds=50)), timeout=30
        )
        await slow.read()
        replica.reports.drain()
        assert await slow.read() == grpc.aio.EOF
