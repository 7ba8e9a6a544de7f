"""The admin port: pages for people, the JSON API, and what Prometheus and probes ask for."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.admin.access import HEADERS, Access, ResponseHeaders
from gateway.admin.authentication import Authentication
from gateway.admin.decision import DecisionPages
from gateway.admin.decisions import Decisions
from gateway.admin.filters import BadFilterError
from gateway.admin.login import Login
from gateway.admin.override_lists import OverrideLists
from gateway.admin.overrides import Overrides
from gateway.admin.overrides_api import override_routes
from gateway.admin.overview import Overview
from gateway.admin.parts import Parts
from gateway.admin.rendering import STATIC, page, sentence
from gateway.admin.replay_api import replay_routes
from gateway.admin.sessions import Sessions, signing_key
from gateway.admin.what_if import WhatIf
from gateway.ledger.ledger import LedgerUnavailableError
from gateway.metrics import Metrics


def admin_app(parts: Parts, metrics: Metrics) -> Starlette:
    """Everything on the admin port.

    Pages and the JSON API are behind one authentication. /metrics and /livez are open to all who
    reach the port: Prometheus and probes ask for them, and they hold no secrets.
    """
    settings, ledger = parts.settings, parts.ledger
    authentication = Authentication(settings.admin_token, settings.proxies)
    login = Login(authentication)

    async def metrics_page(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    pages = (
        Overview(parts),
        Decisions(parts),
        DecisionPages(parts),
        OverrideLists(parts),
        Overrides(parts),
        WhatIf(parts),
        login,
    )
    app = Starlette(
        routes=[
            Route("/metrics", metrics_page),
            Route("/livez", livez),
            *override_routes(parts.overrides),
            *replay_routes(
                ledger,
                parts.overrides,
                accepts_undecodable=settings.on_undecodable == "accept",
            ),
            *(route for one in pages for route in one.routes),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
        ],
        middleware=[
            Middleware(ResponseHeaders),
            Middleware(Sessions, key=signing_key(settings.admin_token), proxies=settings.proxies),
            Middleware(Access, authentication=authentication, refuse=login.refuse),
        ],
        exception_handlers={
            BadFilterError: _bad_filter,
            HTTPException: _http_error,
            LedgerUnavailableError: _no_ledger,
            Exception: _mistake,
        },
    )
    app.state.trouble = ledger.trouble
    return app


def _problem(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith("/api/"):
        content = {"error": HTTPStatus(status).phrase.lower().replace(" ", "_"), "message": message}
        return JSONResponse(content, status)
    return page(request, "error.html", {"status": status, "message": message}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    message = error.detail
    if message == HTTPStatus(error.status_code).phrase:
        message = "There is no such page." if error.status_code == 404 else f"{message}."
    response = _problem(request, error.status_code, message)
    response.headers.update(error.headers or {})
    return response


async def _bad_filter(request: Request, error: Exception) -> Response:
    return _problem(request, 400, sentence(str(error)))


async def _no_ledger(request: Request, error: Exception) -> Response:
    return _problem(request, 503, f"Nothing can be read or changed now: {error}.")


async def _mistake(request: Request, error: Exception) -> Response:
    # Starlette raises it again afterwards, so the log has it in full. The middleware is outside.
    response = _problem(request, 500, "A mistake of ours: the gateway's log has the details.")
    response.headers.update(HEADERS)
    return response
