"""The options of commands that need an inference service."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from imagesafety.channel import TlsFiles
from imagesafety.service_address import ServiceAddress


class ServiceOptionsError(Exception):
    """Options that don't go together."""


LOCAL = "127.0.0.1:50051"
VARIABLE = "IMAGESAFETY_INFERENCE"


def add_service_options(parser: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Adds --inference and the options of TLS; without `needed`, no service is asked by default."""
    asked = f"the variable {VARIABLE}, or {LOCAL}" if needed else "not asked without"
    parser.add_argument(
        "--inference",
        default=os.environ.get(VARIABLE, LOCAL) if needed else None,
        help=f"gRPC target ({asked})",
    )
    parser.add_argument("--ca", type=Path, help="PEM file of the CA to trust: speaks TLS")
    parser.add_argument("--certificate", type=Path, help="PEM file of the certificate to show")
    parser.add_argument("--key", type=Path, help="PEM file of that certificate's key")


def service_address(options: argparse.Namespace) -> ServiceAddress:
    """The service that the options name. Raises ServiceOptionsError."""
    if (options.certificate or options.key) and not (
        options.ca and options.certificate and options.key
    ):
        raise ServiceOptionsError("--certificate and --key need each other and --ca")
    tls = TlsFiles(options.ca, options.certificate, options.key) if options.ca else None
    return ServiceAddress(options.inference, tls)


def not_reached(options: argparse.Namespace) -> str:
    """What to tell a person whose service does not answer."""
    return f"is inference running at {options.inference}? `imagesafety up` starts it"
