"""What pict-rs and probes call. What administrators call is in gateway/admin/app.py."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.drain import Drain, LastAnswers
from gateway.health import Health
from gateway.scan import Scanner


def upload_app(scanner: Scanner, health: Health, drain: Drain) -> Starlette:
    """The routes of the gateway's own address."""

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        exclude = {
            name.strip()
            for part in request.query_params.getlist("exclude")
            for name in part.split(",")
        }
        state = await health.check(exclude)
        content = {"ready": state.ready, "components": dict(state.components)}
        return JSONResponse(content, status_code=200 if state.ready else 503)

    return Starlette(
        routes=[
            Route("/api/v1/scan/{client_id}", scanner.scan, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(LastAnswers, drain=drain)],
    )
