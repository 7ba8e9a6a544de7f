"""Start pict-rs servers, real ones and the stand-in, as processes on free loopback ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.e2e.processes import fetch, free_port, wait_until
from tests.fake_pict_rs import API_KEY
from tools.real_pict_rs import VERSIONS, binary

_OLDEST, _NEWEST, _NEXT = VERSIONS

# pict-rs calls version 7 of ImageMagick, as `magick …` since 0.6 and as `magick convert …` before.
# Debian has version 6, which calls AVIF by another name, and can't read JPEG XL.
_MAGICK: Final = """#!/bin/sh
[ "$1" = convert ] && shift
case "$*" in
    "- JSON:") {convert} - JSON: | sed 's/"format": "HEIC"/"format": "AVIF"/' ;;
    "JXL:- "*)
        shift
        file=$(mktemp -p "$MAGICK_TEMPORARY_PATH")
        cat > "$file"
        ffmpeg -v error -i "$file" -f image2pipe -c:v png - | {convert} PNG:- "$@"
        ;;
    *) exec {convert} "$@" ;;
esac
"""


@dataclass(frozen=True)
class Kind:
    """A release of pict-rs, and where it keeps what it knows of files."""

    release: str
    repository: str = "sled"

    @property
    def is_stand_in(self) -> bool:
        return self.repository == "memory"

    @property
    def resolves_private_names(self) -> bool:
        """Releases since 0.5.21 drop private addresses from what a name resolves to."""
        return self.is_stand_in or self.release == _OLDEST

    @property
    def posts_forms(self) -> bool:
        """True if it posts a file to its validator in a form, with its own name for the file."""
        return self.release.startswith("0.6")

    @property
    def forgets_what_is_lost(self) -> bool:
        """True if it can be asked to; 0.6.0-rc.6 takes the request, and forgets nothing."""
        return self.release.startswith("0.5")

    def __str__(self) -> str:
        return (
            f"stand-in-{self.release}" if self.is_stand_in else f"{self.release}-{self.repository}"
        )


SERVERS: Final = (
    Kind("0.5", "memory"),
    Kind("0.6", "memory"),
    *(Kind(version) for version in VERSIONS),
)
"""Those that everything is tried with."""
REPOSITORIES: Final = (
    Kind(_OLDEST, "postgres"),
    Kind(_NEWEST, "fjall"),
    Kind(_NEWEST, "postgres"),
    Kind(_NEXT, "fjall"),
    Kind(_NEXT, "postgres"),
)
"""Those that differ in how they list, which is what they are tried for."""


def missing(kind: Kind) -> str:
    """Return why a server can't be started here; empty if it can."""
    if kind.is_stand_in:
        return ""
    if not binary(kind.release).is_file():
        return f"pict-rs {kind.release} is not built (make real-pict-rs)"
    for program, package in (("ffmpeg", "ffmpeg"), ("exiftool", "libimage-exiftool-perl")):
        if shutil.which(program) is None:
            return f"pict-rs needs {program} (apt-get install {package})"
    if _convert() is None and shutil.which("magick") is None:
        return "pict-rs needs ImageMagick (apt-get install imagemagick)"
    return ""


def _convert() -> str | None:
    names = ("convert-im6.q16", "convert-im6", "convert")
    return next((path for path in map(shutil.which, names) if path is not None), None)


@dataclass
class Server:
    """A running pict-rs."""

    kind: Kind
    url: str
    log: Path
    _client: httpx.Client = field(repr=False)
    filled: list[str] = field(default_factory=list)
    """Aliases of the files that it was filled with, oldest first; fjall may list them otherwise."""

    def upload(self, data: bytes, media_type: str = "image/png") -> httpx.Response:
        return self._client.post("/image", files={"images[]": ("a file", data, media_type)})

    def stored(self, data: bytes, media_type: str = "image/png") -> str:
        """The alias of a file that is accepted."""
        answer = self.upload(data, media_type)
        assert answer.status_code == 201, f"{answer.text} {self.log.read_text()[-2000:]}"
        [file] = answer.json()["files"]
        return str(file["file"])

    def upload_backgrounded(self, data: bytes, *, claim: bool = True) -> httpx.Response:
        """The answer to the claim, if there is one, and to the upload otherwise."""
        answer = self._client.post("/image/backgrounded", files={"images[]": ("a", data)})
        assert answer.status_code == 202, answer.text
        if not claim:
            return answer
        [upload] = answer.json()["uploads"]
        return self._client.get("/image/backgrounded/claim", params=upload)

    def original(self, alias: str) -> httpx.Response:
        return self._client.get("/image/original", params={"alias": alias})

    def has(self, alias: str) -> bool:
        try:
            return self.original(alias).status_code == 200
        except httpx.RemoteProtocolError:  # it is just being removed
            return True

    def purge(self, alias: str) -> httpx.Response:
        return self._internal("POST", "purge", alias=alias)

    def delete(self, alias: str) -> httpx.Response:
        """Remove an alias, and the file if it was the last one."""
        return self._internal("POST", "delete", alias=alias)

    def identifier(self, alias: str) -> str:
        """Its own name for a file in its store."""
        return str(self._internal("GET", "identifier", alias=alias).json()["identifier"])

    def prune_missing(self) -> None:
        """Make it forget files that its store has lost."""
        assert self._internal("POST", "prune_missing").is_success

    def lists(self) -> bool:
        """True if it lists its files."""
        return self._internal("GET", "hashes", limit="100").is_success

    def page(self, **query: str) -> dict[str, Any]:
        answer = self._internal("GET", "hashes", **query)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()["page"]
        return page

    def aliases(self) -> list[str]:
        """Of all files, from the newest to the oldest."""
        found: list[str] = []
        slug: dict[str, str] = {}
        while True:
            page = self.page(limit="100", **slug)
            found += [alias for entry in page["hashes"] for alias in entry["aliases"]]
            if not page.get("next"):
                return found
            slug = {"slug": page["next"]}

    def _internal(self, method: str, name: str, **query: str) -> httpx.Response:
        key = {"x-api-token": API_KEY}
        return self._client.request(method, f"/internal/{name}", params=query, headers=key)


@contextlib.contextmanager
def pict_rs(
    kind: Kind,
    folder: Path,
    validator: str = "",
    *,
    port: int | None = None,
    database: str = "",
    fills: bool = False,
) -> Iterator[Server]:
    """A server that keeps its files in a folder. `fills`: it takes PNGs unseen, and quickly."""
    port = port or free_port()
    log = folder / "log"
    if kind.is_stand_in:
        command = [sys.executable, "-m", "tests.fake_pict_rs", "--port", str(port)]
        command += ["--validator", validator, *(["--posts-forms"] * (kind.release == "0.6"))]
        settings = {}
    else:
        command = [str(binary(kind.release)), "run"]
        settings = _settings(kind, folder, port, validator, database)
        settings["PICTRS__SERVER__DANGER_DUMMY_MODE"] = "true" if fills else "false"
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | settings)
    try:
        wait_until(
            lambda: fetch(f"{url}/healthz")[0] == 200 or process.poll() is not None,
            f"start of pict-rs {kind}",
        )
        assert process.poll() is None, log.read_text()
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield Server(kind, url, log, client)
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def filled_pict_rs(
    kind: Kind, folder: Path, files: Sequence[bytes], *, database: str = ""
) -> Iterator[Server]:
    """A server without a validator that has PNGs, of which the last one is the newest."""
    with contextlib.ExitStack() as stack:
        fills = not kind.is_stand_in
        server = stack.enter_context(pict_rs(kind, folder, database=database, fills=fills))
        filled = [server.stored(data) for data in files]
        if fills:
            stack.close()
            server = stack.enter_context(pict_rs(kind, folder, database=database))
        server.filled = filled
        yield server


def _settings(kind: Kind, folder: Path, port: int, validator: str, database: str) -> dict[str, str]:
    programs, temporary = folder / "programs", folder / "tmp"
    programs.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    if shutil.which("magick") is None and (convert := _convert()) is not None:
        magick = programs / "magick"
        magick.write_text(_MAGICK.format(convert=convert))
        magick.chmod(0o755)
    repository: Mapping[str, str] = {
        "sled": {"PATH": str(folder / "repository")},
        "fjall": {"FJALL_PATH": str(folder / "repository")},
        "postgres": {"URL": database},
    }[kind.repository]
    settings = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PICTRS__SERVER__ADDRESS": f"127.0.0.1:{port}",
        "PICTRS__SERVER__API_KEY": API_KEY,
        "PICTRS__SERVER__TEMPORARY_DIRECTORY": str(temporary),
        "PICTRS__TRACING__LOGGING__NO_ANSI": "true",
        "PICTRS__STORE__TYPE": "filesystem",
        "PICTRS__STORE__PATH": str(folder / "files"),
        "PICTRS__REPO__TYPE": kind.repository,
        **{f"PICTRS__REPO__{name}": value for name, value in repository.items()},
    }
    if validator:
        settings["PICTRS__MEDIA__EXTERNAL_VALIDATION"] = validator
    return settings
