"""`OpenRcaService`: tells clients how much there is to do here, so that they spread their calls.

Out of band (gRFC A51), and not with each answer: a replica that is stuck answers nothing, and one
without traffic has to be heard of too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc

from inference.load import LoadReport
from inference.orca import orca_pb2, orca_pb2_grpc

_SHORTEST, _DEFAULT, _LONGEST = 0.1, 1.0, 60.0  # seconds between reports


class LoadReports(orca_pb2_grpc.OpenRcaServiceServicer):
    """The gRPC service; `report` is asked for each message."""

    def __init__(self, report: Callable[[], LoadReport]) -> None:
        self._report = report
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Ends all streams: a server that stops would wait for them."""
        self._draining.set()

    async def StreamCoreMetrics(  # noqa: N802
        self,
        request: orca_pb2.OrcaLoadReportRequest,
        context: grpc.aio.ServicerContext[orca_pb2.OrcaLoadReportRequest, orca_pb2.OrcaLoadReport],
    ) -> AsyncIterator[orca_pb2.OrcaLoadReport]:
        """A report at once, then one in each interval that was asked for (at least 100 ms)."""
        asked = request.report_interval.ToNanoseconds() / 1e9
        interval = min(max(asked, _SHORTEST), _LONGEST) if asked > 0 else _DEFAULT
        while not self._draining.is_set():
            yield _message(self._report())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._draining.wait()


def _message(load: LoadReport) -> orca_pb2.OrcaLoadReport:
    return orca_pb2.OrcaLoadReport(
        application_utilization=load.utilisation,
        rps_fractional=load.scored,
        eps=load.refused,
        named_metrics={"busy": load.busy, "waiting_seconds": load.waiting_seconds},
    )
