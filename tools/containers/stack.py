"""A Compose project: the shipped file beside a pict-rs, and questions to both from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tools.containers.engine import CommandError, Engine
from tools.containers.images import ROOT

ADMIN_TOKEN: Final = secrets.token_hex(16)
API_KEY: Final = secrets.token_hex(16)
_PICT_RS_USER: Final = 991
_WAIT_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.5
# pict-rs, as Lemmy's playbook writes it; the other services of its file have no part in this.
_LEMMYS: Final = """
services:
  pictrs:
    image: {image}
    hostname: pictrs
    environment:
      - PICTRS__SERVER__API_KEY={key}
    user: 991:991
    volumes:
      - ./volumes/pictrs:/mnt:Z
    restart: always
"""


class NotInTimeError(Exception):
    """A state that was waited for did not come; the message says which."""


def wait_until(what: str, holds: Callable[[], bool], seconds: float = _WAIT_SECONDS) -> float:
    """Wait for a condition; the seconds that it took. Raises NotInTimeError.

    A connection that fails meanwhile means "not yet".
    """
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        with contextlib.suppress(httpx.HTTPError, CommandError):
            if holds():
                return time.monotonic() - begun
        time.sleep(_POLL_SECONDS)
    raise NotInTimeError(f"not within {seconds:.0f} s: {what}")


@dataclass
class Stack:
    """A running project. `gateway` is the service that pict-rs calls."""

    engine: Engine
    folder: Path
    shipped: str
    pict_rs: str
    gateway: str
    variables: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write the project's files: Lemmy's, the shipped one, and .env."""
        data = self.folder / "volumes" / "pictrs"
        data.mkdir(parents=True, exist_ok=True)
        os.chown(data, _PICT_RS_USER, _PICT_RS_USER)
        lemmys = _LEMMYS.format(image=self.pict_rs, key=API_KEY)
        (self.folder / "docker-compose.yml").write_text(lemmys)
        shutil.copy(ROOT / "deploy" / self.shipped, self.folder / "docker-compose.override.yml")
        self.set()

    def set(self, **variables: str) -> None:
        """Change .env: the only thing that an administrator has to write."""
        self.variables |= variables
        lines = "".join(f"{name}={value}\n" for name, value in self.variables.items())
        (self.folder / ".env").write_text(lines)

    def add(self, name: str, services: Mapping[str, Any]) -> None:
        """Add a Compose file of one's own after the shipped one; none, to remove it."""
        file = self.folder / name
        if services:
            file.write_text(yaml.safe_dump({"services": services}))
            files = ("docker-compose.yml", "docker-compose.override.yml", name)
            self.set(COMPOSE_FILE=":".join(files))
        else:
            self.variables.pop("COMPOSE_FILE", None)
            self.set()

    def compose(self, *arguments: str, seconds: float = 600) -> str:
        """Run Compose in the project; what it prints. Raises CommandError."""
        return self.engine.run_compose(*arguments, folder=self.folder, seconds=seconds)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", container))
        return found[0]

    def address(self, service: str, network: str = "default", number: int = 0) -> str:
        """Return the address of a container, which this machine reaches. Raises CommandError."""
        containers = self.containers(service)
        if number >= len(containers):
            raise CommandError(f"{service} has {len(containers)} containers")
        networks = self.inspect(containers[number])["NetworkSettings"]["Networks"]
        address: str = networks.get(f"{self.folder.name}_{network}", {}).get("IPAddress", "")
        if not address:
            raise CommandError(f"{service} is not on the network {network}")
        return address

    def kill_inside(self, container: str, module: str) -> None:
        """Kill the service's process from inside its container, as the kernel would."""
        code = (
            "import os, pathlib, signal\n"
            "for path in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    words = (path / 'cmdline').read_bytes().split(b'\\0')\n"
            "    parent = (path / 'stat').read_text().rpartition(')')[2].split()[1]\n"
            f"    if parent == '1' and {module.encode()!r} in words:\n"
            "        os.kill(int(path.name), signal.SIGKILL)\n"
        )
        self.engine.docker("exec", container, "python", "-c", code)

    def uploads_url(self) -> str:
        """Return the URL of pict-rs."""
        return f"http://{self.address('pictrs')}:8080"

    def metric(self, url: str, name: str, without: str = "") -> int:
        """Return the sum of a counter over its labels, but for those of which `without` is part."""
        page = httpx.get(url, timeout=10).text
        found = re.findall(rf"^{name}(\{{.*\}})? ([0-9.e+]+)$", page, re.MULTILINE)
        return int(
            sum(float(value) for labels, value in found if not without or without not in labels)
        )

    def unscanned(self) -> tuple[int, int]:
        """Return how many uploads passed unscanned, and how many were scanned afterwards.

        Both since the gateway's start.
        """
        url = f"http://{self.address(self.gateway)}:14052/metrics"
        passed = self.metric(url, "imagesafety_unscanned_total")
        return passed, self.metric(url, "imagesafety_rescans_total", without="failed")

    def is_ready(self) -> bool:
        """True if the gateway is ready, and with it inference and the policy."""
        url = f"http://{self.address(self.gateway, 'validator')}:14051/readyz"
        ready: bool = httpx.get(url, timeout=10).status_code == 200
        return ready and httpx.get(f"{self.uploads_url()}/healthz").status_code == 200

    def up(self) -> float:
        """Start or change the project, and wait until it is ready; the seconds that took."""
        begun = time.monotonic()
        self.compose("up", "--detach")
        wait_until("the services are ready", self.is_ready)
        return time.monotonic() - begun

    def down(self) -> None:
        """Remove the project with its volumes."""
        with contextlib.suppress(CommandError):
            self.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
