"""Who may ask: the caller's address for `IPADDR`, or a secret in the URL."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

BY_ADDRESS = "IPADDR"


def authenticate(
    client_id: str,
    peer: str | None,
    networks: Sequence[IPv4Network | IPv6Network],
    secrets: Mapping[str, str],
) -> str | None:
    """The name of the client that may call with this `client_id` from this address, or None.

    `peer` is the address of the socket's other end; headers that claim another one are no proof.
    """
    if client_id == BY_ADDRESS:
        return BY_ADDRESS if peer is not None and _is_within(peer, networks) else None
    digest = _digest(client_id)
    found = None
    for name, secret in secrets.items():  # all of them, so that the time tells nothing
        if hmac.compare_digest(digest, _digest(secret)):
            found = name
    return found


def _is_within(peer: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])  # fe80::1%eth0
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
