"""Which flags a service knows, so that a rehearsal plays with those that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

from benchmarks.serving.material import ROOT


@cache
def known(module: str) -> frozenset[str]:
    """The flags that `python -m module --help` names, such as "--listen"."""
    command = [sys.executable, "-m", module, "--help"]
    text = subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return frozenset(re.findall(r"--[a-z][a-z0-9-]*", text))


def where_known(module: str, **values: object) -> list[str]:
    """The flags and values that the service knows; the others are left out."""
    flags = {"--" + name.replace("_", "-"): str(value) for name, value in values.items()}
    return [
        part for flag, value in flags.items() if flag in known(module) for part in (flag, value)
    ]
