"""Who gets embeddings. Pure code.

A client has the image and could compute much of its embedding by itself, if it has the model. What
is kept here is the model's: with enough embeddings, one that nobody else has could be imitated.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

EmbeddingsSetting = Literal["auto", "never", "always"]

_VERIFIED = "x509_pem_cert"  # gRPC has it only where a client showed a certificate of our CA


def may_have_embeddings(
    setting: EmbeddingsSetting, peer: str, authentication: Mapping[str, object]
) -> bool:
    """Whether a client gets embeddings, by gRPC's name of it and what TLS knows of it.

    With `auto`, those do that are on this machine, and those with a certificate that was verified.
    """
    if setting != "auto":
        return setting == "always"
    return bool(authentication.get(_VERIFIED)) or _is_local(peer)


def _is_local(peer: str) -> bool:
    """Whether a peer such as "ipv4:127.0.0.1:1234" or "ipv6:%5B::1%5D:1234" is on this machine."""
    kind, _, address = unquote(peer).partition(":")
    if kind in ("unix", "unix-abstract"):
        return True
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback
