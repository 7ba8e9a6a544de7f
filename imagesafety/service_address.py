"""Where the inference service is, and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass

from imagesafety.channel import TlsFiles


@dataclass(frozen=True)
class ServiceAddress:
    """A gRPC target, with the files of TLS if it is spoken there."""

    target: str
    tls: TlsFiles | None = None
