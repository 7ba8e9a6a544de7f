"""`imagesafety`, the command for people."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

# What gRPC says of connections is said by our own errors, in words; set before its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from imagesafety.command import calibrate, evaluate, policy, quarantine, scan, score, up


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code. 2 means that it was asked for something impossible."""
    parser = argparse.ArgumentParser(
        prog="imagesafety", description="Image safety for the fediverse."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (up, score, evaluate, calibrate, scan, quarantine, policy):
        module.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    return code
