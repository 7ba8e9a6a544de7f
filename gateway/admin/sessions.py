"""Sessions in a signed cookie, and the token in it that forms have to send back."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.callers import Network, is_within, parse_address

COOKIE = "imagesafety_admin"
SECONDS = 12 * 3600


def signing_key(token: str) -> str:
    """The key that signs cookies: gateways with one token share sessions, a new token ends them."""
    if not token:
        return secrets.token_hex(32)
    return hmac.digest(token.encode(), b"imagesafety admin sessions", hashlib.sha256).hex()


class Sessions:
    """Middleware that keeps `scope["session"]` in a cookie; Secure where the browser has TLS."""

    def __init__(self, app: ASGIApp, key: str, proxies: Sequence[Network]) -> None:
        self._proxies = proxies
        self._plain, self._secure = (
            SessionMiddleware(
                app,
                key,
                session_cookie=COOKIE,
                max_age=SECONDS,
                same_site="strict",
                https_only=secure,
            )
            for secure in (False, True)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on."""
        secure = scope["type"] == "http" and self._has_tls(HTTPConnection(scope))
        await (self._secure if secure else self._plain)(scope, receive, send)

    def _has_tls(self, connection: HTTPConnection) -> bool:
        if connection.scope["scheme"] == "https":
            return True
        peer = connection.client.host if connection.client else None
        if not is_within(parse_address(peer), self._proxies):
            return False
        said = connection.headers.get("x-forwarded-proto", "")
        return said.rpartition(",")[2].strip().lower() == "https"


def begin(connection: HTTPConnection, who: str) -> None:
    """Starts a session for somebody who has shown that they may."""
    connection.session.clear()
    connection.session.update(who=who, since=time.time())


def who_began(connection: HTTPConnection) -> str | None:
    """Whose session it is, if there is one that is not too old."""
    who, since = connection.session.get("who"), connection.session.get("since", 0.0)
    return str(who) if who and time.time() - since <= SECONDS else None


def form_token(connection: HTTPConnection) -> str:
    """What forms on our pages send along, to show that they are ours."""
    token = connection.session.get("form_token")
    if token is None:
        token = connection.session["form_token"] = secrets.token_urlsafe(24)
    return str(token)


def is_form_token(connection: HTTPConnection, sent: object) -> bool:
    """Whether a form has sent the token of this session."""
    wanted = connection.session.get("form_token")
    if not isinstance(sent, str) or not wanted:
        return False
    return hmac.compare_digest(str(wanted).encode(), sent.encode("utf-8", "surrogatepass"))
