"""What pict-rs and probes call. What administrators call is in gateway/admin/app.py."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.health import Health
from gateway.scan import Scanner


def upload_app(scanner: Scanner, health: Health) -> Starlette:
    """The routes of the gateway's own address."""

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        state = await health.check()
        content = {"ready": state.ready, "components": dict(state.components)}
        return JSONResponse(content, status_code=200 if state.ready else 503)

    return Starlette(
        routes=[
            Route("/api/v1/scan/{client_id}", scanner.scan, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ]
    )
