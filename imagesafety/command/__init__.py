"""`imagesafety`, the command for people."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

# What gRPC says of connections is said by our own errors, in words; set before its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from imagesafety.command import calibrate, evaluate, policy, quarantine, scan, score, up


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code. 2 means that it was asked for something impossible."""
    _print_whatever_it_is()
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


def _print_whatever_it_is() -> None:
    """Escapes what a terminal's encoding lacks: that must not end a run of hours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
