"""Who may ask: the caller's address for `IPADDR`, or a secret in the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.callers import Network, is_within, parse_address
from gateway.secret_comparison import is_secret

BY_ADDRESS = "IPADDR"


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
