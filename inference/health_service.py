"""The standard health service, as `ServingStatus` says."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2

from inference.serving_status import NAMES, ServingStatus, Trouble

_Response = health_pb2.HealthCheckResponse


class HealthService(health.aio.HealthServicer):
    """Health of the service; `Watch` streams end when it drains."""

    def __init__(self) -> None:
        super().__init__()
        self._status = ServingStatus()
        self._draining = asyncio.Event()

    async def serve(self) -> None:
        """Announces all names for the first time."""
        await self._tell()

    async def announce(self, trouble: Trouble, holds: bool) -> None:
        """A trouble holds from now on, or does not any more."""
        self._status.set(trouble, holds)
        await self._tell()

    def objection(self, name: str) -> str | None:
        """Why a name is not SERVING, if so; may be asked from any thread."""
        return self._status.objection(name)

    async def _tell(self) -> None:
        for name in NAMES:
            objection = self._status.objection(name)
            await self.set(name, _Response.NOT_SERVING if objection else _Response.SERVING)

    async def drain(self) -> None:
        """Announces that the service shuts down, and ends `Watch`: stopping waits for all calls."""
        await self.announce(Trouble.DRAINING, True)
        self._draining.set()

    async def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ],
    ) -> None:
        """See grpc.health.v1; what was announced last is sent before the stream ends."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((watching, draining), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, draining):
                task.cancel()
            await asyncio.gather(watching, draining, return_exceptions=True)
