"""Who asks for an admin page, and whether they may: a token, or being on this machine."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import HTTPConnection

from gateway.admin import sessions
from gateway.admin.failed_attempts import FailedAttempts
from gateway.callers import Network, caller_address, is_within, parse_address
from gateway.secret_comparison import is_secret

NOT_HERE = (
    "Without a token, the admin pages open on the gateway's own machine only; "
    "set IMAGESAFETY_GATEWAY_ADMIN_TOKEN to open them from elsewhere."
)
# Any of these says that somebody else is asking through the peer.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")

log = logging.getLogger("gateway.admin")


class Proof(StrEnum):
    """What lets a caller in."""

    SESSION = "session"
    BASIC = "basic"
    BEARER = "bearer"
    THIS_MACHINE = "this machine"


@dataclass(frozen=True)
class Caller:
    """Somebody who may, by what proof, and the name for the record of changes."""

    who: str
    proof: Proof


@dataclass(frozen=True)
class Refusal:
    """Why somebody may not: 401, or 429 with the seconds to wait."""

    status: int
    message: str
    retry_after: int = 0


class Authentication:
    """Decides who may see the admin pages.

    With a token: a session, HTTP Basic with the token as password, or a bearer token. Without one:
    whoever is on this machine, and nobody who could be sent there by a web page or a proxy.
    """

    def __init__(
        self,
        token: str,
        proxies: Sequence[Network] = (),
        failures: FailedAttempts | None = None,
    ) -> None:
        self.token = token
        self.proxies = proxies
        self._failures = failures if failures is not None else FailedAttempts()

    def identify(self, connection: HTTPConnection) -> Caller | Refusal:
        """Who this is. `connection` has a session; nothing else of it is believed unproven."""
        named = clean_name(connection.headers.get("x-admin-name", ""))
        if not self.token:
            if not self._is_on_this_machine(connection):
                return Refusal(401, NOT_HERE)
            who = named or sessions.who_began(connection) or "local"
            return Caller(who, Proof.THIS_MACHINE)
        if "authorization" in connection.headers:
            scheme, user, sent = _credentials(connection.headers["authorization"])
            if (refusal := self.check(connection, sent)) is not None:
                return refusal
            if scheme is Proof.BEARER:
                return Caller(named or "api", scheme)
            return Caller(clean_name(user) or "admin", scheme)
        if known := sessions.who_began(connection):
            return Caller(known, Proof.SESSION)
        return Refusal(401, "Log in with the gateway's admin token.")

    def check(self, connection: HTTPConnection, token: str) -> Refusal | None:
        """Why this token does not open the pages now, or None if it does. Failures are counted."""
        address = self._address(connection)
        if wait := self._failures.retry_after(address):
            return Refusal(429, "Too many wrong tokens from this address: wait a minute.", wait)
        if self.token and is_secret(token, self.token):
            return None
        self._failures.note(address)
        log.warning("wrong admin token from %s", address)
        return Refusal(401, "That is not the gateway's admin token.")

    def _address(self, connection: HTTPConnection) -> str | None:
        forwarded = connection.headers.getlist("x-forwarded-for")
        return caller_address(_peer(connection), forwarded, self.proxies)

    def _is_on_this_machine(self, connection: HTTPConnection) -> bool:
        # A name of somebody's that resolves to 127.0.0.1 would make our pages part of their site.
        if not _is_loopback_name(connection.headers.get("host", "")):
            return False
        # nginx's proxy_pass, left alone, speaks HTTP/1.0 and doesn't say for whom.
        if connection.scope.get("http_version") == "1.0":
            return False
        if is_within(parse_address(_peer(connection)), self.proxies):
            # The one header that is read; what else a proxy of ours says may come from the caller.
            if "x-forwarded-for" not in connection.headers:
                return False
        elif any(name in connection.headers for name in _FORWARDED):
            return False
        address = parse_address(self._address(connection))
        return address is not None and address.is_loopback


def clean_name(text: str) -> str:
    """A name as it may stand in the record of changes; empty if it is none."""
    text = text.strip()
    return text if _NAME.fullmatch(text) else ""


def _peer(connection: HTTPConnection) -> str | None:
    return connection.client.host if connection.client is not None else None


def _is_loopback_name(host: str) -> bool:
    match = re.fullmatch(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::[0-9]+)?", host)
    name = match[1].lower() if match else ""
    address = parse_address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def _credentials(header: str) -> tuple[Proof, str, str]:
    """Kind, user and token of an Authorization header; what can't be read has no token."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return Proof.BEARER, "", rest.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest.strip(), validate=True).decode()
        except ValueError:
            decoded = ""
        user, _, password = decoded.partition(":")
        return Proof.BASIC, user, password
    return Proof.BASIC, "", ""
