"""Who is really calling: the address behind proxies that are known to us. Pure code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# An address with a port, as some proxies write it: 192.0.2.1:4711 or [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"(?:(\d+\.\d+\.\d+\.\d+)|\[([0-9A-Fa-f:.]+)\])(?::\d+)?")


def parse_address(text: str | None) -> Address | None:
    """The address in a text, such as "10.0.0.1", "fe80::1%eth0", "[::1]:80"; None if it is none.

    An IPv4 address in IPv6's clothes (::ffff:10.0.0.1) comes out as IPv4.
    """
    if text is None:
        return None
    text = text.strip().partition("%")[0]
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_within(address: Address | None, networks: Sequence[Network]) -> bool:
    """Whether an address belongs to one of the networks."""
    return address is not None and any(address in network for network in networks)


def caller_address(
    peer: str | None, forwarded_for: Sequence[str], proxies: Sequence[Network]
) -> str | None:
    """The address of the caller, or None where nobody who is to be believed says it.

    `peer` is the address of the socket's other end. `forwarded_for` are the values of all
    X-Forwarded-For headers in their order; each proxy adds on the right whom it speaks for, and
    what stands further left than a proxy of ours wrote may be forged. So: the rightmost address
    that is no proxy of ours; where all of them are, the leftmost.
    """
    caller = parse_address(peer)
    hops = [hop for value in forwarded_for for hop in value.split(",")]
    while is_within(caller, proxies) and hops:
        caller = parse_address(hops.pop())
    return str(caller) if caller is not None else None
