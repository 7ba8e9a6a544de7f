"""Who may ask: the caller's address for `IPADDR`, or a secret in the URL. Pure code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from gateway.callers import Network, is_within, parse_address
from gateway.secret_comparison import is_secret
from imagesafety.policy import Mode

BY_ADDRESS = "IPADDR"
SHORTEST_SECRET = 16


def authenticate(
    client_id: str,
    peer: str | None,
    networks: Sequence[Network],
    secrets: Mapping[str, str],
) -> str | None:
    """The name of the client that may call with this `client_id` from this address, or None.

    `peer` is the address of the socket's other end; headers that claim another one are no proof.
    """
    if client_id == BY_ADDRESS:
        return BY_ADDRESS if is_within(parse_address(peer), networks) else None
    found = None
    for name, secret in secrets.items():  # all of them, so that the time tells nothing
        if is_secret(client_id, secret):
            found = name
    return found


def parse_secrets(items: Sequence[str]) -> dict[str, str]:
    """Secrets by client name, of NAME:SECRET each. Raises ValueError."""
    result: dict[str, str] = {}
    for item in items:
        name, _, secret = item.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) or name in result:
            raise ValueError("client_secrets needs a different NAME for each NAME:SECRET")
        if not re.fullmatch(rf"[A-Za-z0-9._~-]{{{SHORTEST_SECRET},}}", secret):
            raise ValueError(
                f"the secret of client {name} needs at least {SHORTEST_SECRET} characters "
                "out of letters, digits and ._~-"
            )
        result[name] = secret
    return result


def parse_modes(items: Sequence[str], names: Collection[str]) -> dict[str, Mode]:
    """Modes by client name, of NAME:MODE each, for clients of these names. Raises ValueError."""
    result: dict[str, Mode] = {}
    for item in items:
        name, _, mode = item.rpartition(":")
        if name not in (*names, BY_ADDRESS) or name in result:
            raise ValueError(f"client_modes: {name!r} is no name of client_secrets, or there twice")
        if mode not in tuple(Mode):
            raise ValueError(f"client_modes: {mode!r} is none of {', '.join(Mode)}")
        result[name] = Mode(mode)
    return result
