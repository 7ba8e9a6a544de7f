"""The login page: a name for the record of changes, and the token if there is one."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.admin import sessions
from gateway.admin.authentication import Authentication, Refusal, clean_name
from gateway.admin.forms import Form, form_route
from gateway.admin.rendering import page

_CHALLENGE = 'Bearer realm="imagesafety", Basic realm="imagesafety", charset="UTF-8"'
# A browser that is offered Basic shows its own window instead of our page.
_QUIET_CHALLENGE = 'Bearer realm="imagesafety"'


class Login:
    """Logging in and out, and what those see who have not."""

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of this page."""
        return [
            Route("/login", self._show),
            form_route("/login", self._log_in),
            form_route("/logout", self._log_out),
        ]

    def refuse(self, request: Request, refusal: Refusal) -> Response:
        """The answer to somebody who may not: JSON for programs, else the login page."""
        headers = {}
        if refusal.status == 401:
            tried = "authorization" in request.headers
            headers["WWW-Authenticate"] = _CHALLENGE if tried else _QUIET_CHALLENGE
        if refusal.retry_after:
            headers["Retry-After"] = str(refusal.retry_after)
        if request.url.path.startswith("/api/"):
            content = {"error": "not_allowed", "message": refusal.message}
            return JSONResponse(content, refusal.status, headers)
        if refusal.status == 401 and self._authentication.token:
            return self._form(request, refusal, headers)
        context = {"status": refusal.status, "message": refusal.message}
        return page(request, "error.html", context, refusal.status, headers)

    async def _show(self, request: Request) -> Response:
        if not self._authentication.token:
            found = self._authentication.identify(request)
            if isinstance(found, Refusal):
                return self.refuse(request, found)
        return self._form(request, None, {})

    def _form(
        self,
        request: Request,
        refusal: Refusal | None,
        headers: dict[str, str],
        target: str | None = None,
    ) -> Response:
        if target is None:
            target = request.query_params.get("next", "")
        if request.url.path != "/login" and request.method == "GET":
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        context = {
            "refusal": refusal,
            "tried": request.method == "POST" or "authorization" in request.headers,
            "needs_token": bool(self._authentication.token),
            "next": _own_path(target),
        }
        return page(request, "login.html", context, refusal.status if refusal else 200, headers)

    async def _log_in(self, request: Request, form: Form) -> Response:
        if self._authentication.token:
            refusal = self._authentication.check(request, form.text("token"))
        else:
            found = self._authentication.identify(request)
            refusal = found if isinstance(found, Refusal) else None
        name = clean_name(form.text("name"))
        if refusal is None and not name:
            refusal = Refusal(400, "Give a name: changes are recorded under it.")
        if refusal is not None:
            headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
            return self._form(request, refusal, headers, form.text("next"))
        sessions.begin(request, name)
        return RedirectResponse(_own_path(form.text("next")), 303)

    async def _log_out(self, request: Request, form: Form) -> Response:
        request.session.clear()
        return RedirectResponse("/login", 303)


def _own_path(text: str) -> str:
    """The path of a page of ours, whatever a link has asked to go on to."""
    own = re.fullmatch(r"/[A-Za-z0-9_-][!-~]*", text) and "\\" not in text
    return text if own else "/"
