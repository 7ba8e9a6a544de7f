"""The gate in front of every admin page: nothing behind it runs for somebody who may not."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.authentication import Authentication, Proof, Refusal
from gateway.admin.same_origin import objection

# Prometheus and probes ask for the first two, which hold nothing secret; logging in needs the rest.
_OPEN = frozenset({"/metrics", "/livez", "/login"})
_STATIC = "/static/"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Access:
    """Middleware that sets `request.state.who` and `.caller`, or answers with a refusal itself."""

    def __init__(
        self,
        app: ASGIApp,
        authentication: Authentication,
        refuse: Callable[[Request, Refusal], Response],
    ) -> None:
        self._app, self._authentication, self._refuse = app, authentication, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on, or refuses it."""
        path = scope.get("path", "")
        if scope["type"] != "http" or path in _OPEN or path.startswith(_STATIC):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        found = self._authentication.identify(request)
        if isinstance(found, Refusal):
            await self._refuse(request, found)(scope, receive, send)
            return
        if found.proof is not Proof.BEARER and (why := objection(request.method, request.headers)):
            await self._refuse(request, Refusal(403, f"Refused: {why}."))(scope, receive, send)
            return
        scope.setdefault("state", {}).update(who=found.who, caller=found)
        await self._app(scope, receive, send)


class ResponseHeaders:
    """Middleware: nothing here runs what is not ours, is framed, or stays in a cache."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on, and adds headers to the answer."""
        cache = "no-cache" if scope.get("path", "").startswith(_STATIC) else "no-store"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", cache)
            await send(message)

        await self._app(scope, receive, send_with_headers)
