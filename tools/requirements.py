"""Prints what the distribution and some of its extras require, a line each: for pip in a container.

pip installs a project only together with what it requires; a container's layers keep them apart,
so that a change of code does not install PyTorch again.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(*extras: str) -> list[str]:
    """The requirements of the distribution and of the extras. Raises KeyError without such one."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    of_extras = [item for extra in extras for item in project["optional-dependencies"][extra]]
    return list(dict.fromkeys([*project["dependencies"], *of_extras]))


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
