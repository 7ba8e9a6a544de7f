"""Generates code from protos/, or checks that it is fresh (`--check`)."""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "protos"
PROTO_FILES = ("imagesafety/v1/scoring.proto", "inference/orca/orca.proto")


def generate(into: Path) -> list[Path]:
    """Writes the generated files below `into` and returns their paths, relative to it."""
    plugins = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"-I{PROTOS}", f"-I{PROTOS / 'third_party'}"),
        *(f"--python_out={into}", f"--grpc_python_out={into}"),
        *(f"--mypy_out=quiet:{into}", f"--mypy_grpc_out=quiet:{into}"),
        *PROTO_FILES,
    ]
    subprocess.run(command, check=True, env=plugins)  # noqa: S603
    return sorted(
        path.relative_to(into)
        for proto in PROTO_FILES
        for path in into.glob(f"{proto.removesuffix('.proto')}_pb2*")
    )


def main() -> int:
    """Generates or checks; 1 if something is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        stale = [
            path
            for path in generate(fresh)
            if not (ROOT / path).is_file() or not filecmp.cmp(ROOT / path, fresh / path, False)
        ]
    for path in stale:
        print(f"{path} is stale: run make protos", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
