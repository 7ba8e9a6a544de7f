"""The routes of the gateway."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.health import check
from gateway.metrics import Metrics
from gateway.scan import Scanner
from imagesafety.client import ScoringClient
from imagesafety.policy import Policy


def upload_app(scanner: Scanner, client: ScoringClient, policy: Policy) -> Starlette:
    """What pict-rs and probes call."""

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        components = await check(client, policy)
        ready = set(components.values()) == {"ok"}
        content = {"ready": ready, "components": components}
        return JSONResponse(content, status_code=200 if ready else 503)

    return Starlette(
        routes=[
            Route("/api/v1/scan/{client_id}", scanner.scan, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ]
    )


def admin_app(metrics: Metrics) -> Starlette:
    """What administrators and Prometheus call."""

    async def metrics_page(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics_page)])
