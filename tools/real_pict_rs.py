"""Build the pict-rs releases that tests run against, once a machine.

`python -m tools.real_pict_rs` builds those that are missing (5 to 8 minutes each on two cores, 4 GB
of disk meanwhile and 200 MB in the end) into a cache outside the checkout:
`$XDG_CACHE_HOME/imagesafety/pict-rs/VERSION/bin/pict-rs`. A debug profile, because nobody measures
them. Without cargo, it says so and succeeds: those tests are skipped then.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VERSIONS: Final = ("0.5.17", "0.5.25", "0.6.0-rc.6")
"""The last one whose validator may have a private name, the newest one, and the one to come."""

_PROFILE: Final = {
    "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CARGO_PROFILE_DEV_INCREMENTAL": "false",
    "RUSTFLAGS": "--cfg tokio_unstable",
}


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder with one folder for each release."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "imagesafety" / "pict-rs"


def binary(version: str) -> Path:
    """Return where a release is, or will be."""
    return cache_folder() / version / "bin" / "pict-rs"


def build(version: str, cargo: str) -> None:
    """Build a release. Raises CalledProcessError."""
    folder = cache_folder()
    # An interrupted build leaves nothing under the name of a finished one.
    part = folder / f"{version}.part"
    shutil.rmtree(part, ignore_errors=True)
    subprocess.run(  # noqa: S603
        [cargo, "install", "--locked", "--debug", "--root", part, f"pict-rs@{version}"],
        env=os.environ | _PROFILE | {"CARGO_TARGET_DIR": str(folder / "target")},
        check=True,
    )
    shutil.rmtree(folder / version, ignore_errors=True)
    part.rename(folder / version)


def main() -> int:
    """Build what is missing; 1 if a build failed."""
    parser = argparse.ArgumentParser(description="Build the pict-rs that tests run against.")
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    versions: tuple[str, ...] = tuple(parser.parse_args().versions)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another checkout may be building
        missing = [version for version in versions if not binary(version).is_file()]
        if not missing:
            print(f"pict-rs {', '.join(versions)}: built already, in {folder}")
            return 0
        cargo = shutil.which("cargo") or shutil.which("cargo", path=Path.home() / ".cargo" / "bin")
        if cargo is None:
            print(f"pict-rs {', '.join(missing)}: not built, there is no cargo (rustup.rs)")
            return 0
        try:
            for version in missing:
                begun = time.monotonic()
                build(version, cargo)
                print(f"pict-rs {version}: built in {time.monotonic() - begun:.0f} s")
        except subprocess.CalledProcessError as error:
            print(f"pict-rs {version}: the build failed ({error})", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(folder / "target", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
