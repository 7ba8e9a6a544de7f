"""Build the images as the documents say, and one of pict-rs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from tools.containers.engine import CommandError, Engine, NoEngineError, run_command
from tools.real_pict_rs import binary

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "deploy" / "README.md"
PICT_RS: Final = "0.5.25"
_PULLED: Final = f"docker.io/asonix/pictrs:{PICT_RS}"
_BASE: Final = "python:3.11-slim-bookworm"  # the Dockerfile's PYTHON_IMAGE
_STAND_IN: Final = "imagesafety-python:bookworm"
_IN_STAND_IN: Final = "ca-certificates,python3.11,python3.11-venv,python3-pip,libpython3.11-dev"
_BUILD_SECONDS: Final = 3600.0
# pict-rs says `magick convert …`, as version 7 of ImageMagick has it; Debian has version 6.
_MAGICK: Final = """#!/bin/sh
[ "$1" = convert ] && shift
exec convert "$@"
"""
_PICT_RS_DOCKERFILE: Final = """
ARG BASE
FROM ${BASE}
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends ffmpeg imagemagick libimage-exiftool-perl tini
COPY pict-rs magick /usr/local/bin/
ENV HOME=/tmp PICTRS__SERVER__ADDRESS=0.0.0.0:8080 PICTRS__REPO__PATH=/mnt/sled-repo \\
    PICTRS__STORE__PATH=/mnt/files
USER 991:991
ENTRYPOINT ["tini", "--", "pict-rs", "run"]
"""


def documented_builds(readme: Path = README) -> list[list[str]]:
    """Return the arguments of each `docker build` in the code blocks of a document."""
    commands = re.findall(r"^ {4,}docker (build .*)$", readme.read_text(), re.MULTILINE)
    return [shlex.split(command) for command in commands]


def build_all(engine: Engine) -> Iterator[tuple[str, str]]:
    """Build each image by its documented command; yield its tag and size. Raises CommandError."""
    options = ["--network", "host"]
    base = python_image(engine)
    options += ["--build-arg", f"PYTHON_IMAGE={base}"]
    if not _has_torch_index():
        options += ["--build-arg", "TORCH_INDEX="]
    for _, *arguments in documented_builds():
        engine.docker("build", *options, *arguments, folder=ROOT, seconds=_BUILD_SECONDS)
        tag = arguments[arguments.index("--tag") + 1]
        size = engine.docker("image", "inspect", "--format", "{{.Size}}", tag)
        yield tag, f"{int(size) / 1e6:.0f} MB"


def python_image(engine: Engine) -> str:
    """Return the tag of the base image, or of what stands in for it where it can't be pulled.

    Raises NoEngineError.
    """
    if _is_there(engine, _BASE):
        return _BASE
    if not _is_there(engine, _STAND_IN, pull=False):
        _make_stand_in(engine)
    return _STAND_IN


def pict_rs_image(engine: Engine) -> str:
    """Return the tag of pict-rs's image: its own, or one around the binary that tests use.

    Raises NoEngineError and CommandError.
    """
    if _is_there(engine, _PULLED):
        return _PULLED
    program = binary(PICT_RS)
    if not program.is_file():
        raise NoEngineError(f"pict-rs {PICT_RS} is not built: run `make real-pict-rs`")
    tag = f"pict-rs:{PICT_RS}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(program, folder / "pict-rs")
        (folder / "magick").write_text(_MAGICK)
        (folder / "magick").chmod(0o755)
        (folder / "Dockerfile").write_text(_PICT_RS_DOCKERFILE)
        base = ("--build-arg", f"BASE={python_image(engine)}")
        engine.docker("build", "--network", "host", *base, "--tag", tag, ".", folder=folder)
    return tag


def _is_there(engine: Engine, image: str, *, pull: bool = True) -> bool:
    for command in (("image", "inspect"), ("pull",)) if pull else (("image", "inspect"),):
        try:
            engine.docker(*command, image, seconds=300)
        except CommandError:
            continue
        return True
    return False


def _has_torch_index() -> bool:
    """True if the index of the Dockerfile can be reached from here."""
    text = (ROOT / "Dockerfile").read_text()
    (url,) = re.findall(r"^ARG TORCH_INDEX=(\S+)$", text, re.MULTILINE)
    try:
        return httpx.head(f"{url}/torch/", timeout=10).is_success
    except httpx.HTTPError:
        return False


def _make_stand_in(engine: Engine) -> None:
    """Import Debian's Python as an image. Raises NoEngineError."""
    debootstrap = shutil.which("debootstrap")
    if debootstrap is None or os.geteuid() != 0:
        reason = "the base image can't be pulled, and only root with debootstrap can make another"
        raise NoEngineError(reason)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        options = ("--variant=minbase", f"--include={_IN_STAND_IN}")
        run_command(debootstrap, *options, "bookworm", str(root))
        # As in the image that it stands for: `python`, and a pip that may install.
        for link in ("python", "python3"):
            (root / "usr/bin" / link).unlink(missing_ok=True)
            (root / "usr/bin" / link).symlink_to("python3.11")
        (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
        # What this machine trusts, and where it gets packages from.
        for path in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf", "etc/apt/sources.list"):
            if Path("/", path).is_file():
                shutil.copy(Path("/", path), root / path)
        for source in Path("/etc/apt/sources.list.d").glob("debian*.sources"):
            shutil.copy(source, root / "etc/apt/sources.list.d")
            (root / "etc/apt/sources.list").unlink(missing_ok=True)
        archive = Path(name) / "root.tar"
        run_command("tar", "--directory", str(root), "--create", "--file", str(archive), ".")
        engine.docker("import", str(archive), _STAND_IN, seconds=600)
