"""docs/guide.md, run as it is written: in a folder of its own, against real processes.

Only addresses are others: the guide's are the defaults, which something else may have taken.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import fetch, free_port, wait_until

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text()
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GATEWAY, ADMIN, INFERENCE = "127.0.0.1:14051", "127.0.0.1:14052", "127.0.0.1:50051"
START, RELOAD = "imagesafety up", "mv calibrated.toml my.toml"
COMMAND_SECONDS = 500


class Checkout:
    """A folder that looks like a fresh checkout, and a home that nobody has lived in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in (GATEWAY, ADMIN, INFERENCE)}
        shutil.copytree(ROOT / "policies", folder / "policies")
        shutil.copytree(ROOT / "examples", folder / "examples")
        binaries = folder / ".venv" / "bin"
        binaries.mkdir(parents=True)
        for name, run in (("python", ""), ("imagesafety", "-m imagesafety.command ")):
            script = binaries / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {run}"$@"\n')
            script.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "IMAGESAFETY_"))}
        self.environment = {
            **kept,
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "IMAGESAFETY_GATEWAY_LISTEN": self.addresses[GATEWAY],
            "IMAGESAFETY_GATEWAY_ADMIN_LISTEN": self.addresses[ADMIN],
            "IMAGESAFETY_INFERENCE_LISTEN": self.addresses[INFERENCE],
            "IMAGESAFETY_INFERENCE": self.addresses[INFERENCE],
            "IMAGESAFETY_ADMIN": f"http://{self.addresses[ADMIN]}",
        }

    def run(self, script: str) -> str:
        """Runs commands; what they print. They have to succeed."""
        for written, real in self.addresses.items():
            script = script.replace(written, real)
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_SECONDS,
        )  # fmt: skip
        assert ended.returncode == 0, f"{script}\n{ended.stdout}"
        assert "Traceback" not in ended.stdout
        return ended.stdout

    @contextlib.contextmanager
    def running(self, script: str) -> Iterator[None]:
        """What is left running in a shell of its own, until the block ends."""
        with (self.folder / "up.log").open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {script}"], cwd=self.folder, env=self.environment,
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            wait_until(
                lambda: process.poll() is not None or self.status("/readyz") == 200,
                "start of both services",
            )
            assert process.poll() is None, (self.folder / "up.log").read_text()
            yield
        finally:
            process.terminate()
            process.wait(60)

    def status(self, path: str) -> int:
        return fetch(f"http://{self.addresses[GATEWAY]}{path}")[0]

    def wait_for_new_policy(self) -> None:
        taken = 'imagesafety_policy_reloads_total{outcome="taken"} 1.0'
        wait_until(
            lambda: taken in fetch(f"http://{self.addresses[ADMIN]}/metrics")[1],
            "the gateway takes the new policy",
        )


def missing(expected: str, output: str) -> list[str]:
    """The lines that the guide quotes and that were not printed; … stands for anything."""
    return [
        line
        for line in expected.splitlines()
        if not re.search(
            "^" + ".*".join(map(re.escape, line.split("…"))) + "$", output, re.MULTILINE
        )
    ]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.timeout(1500)
def test_the_guides_commands_run_as_written(tmp_path: Path) -> None:
    checkout, output = Checkout(tmp_path), ""
    blocks = BLOCK.findall(GUIDE)
    assert sum(START in content for _, content in blocks) == 1
    with contextlib.ExitStack() as stack:
        for kind, content in blocks:
            if kind == "text":
                assert missing(content, output) == [], output
            elif START in content:
                stack.enter_context(checkout.running(content))
            else:
                output = checkout.run(content)
                if RELOAD in content:
                    checkout.wait_for_new_policy()
    assert (tmp_path / "report" / "report.html").is_file()
    # What was evaluated and scanned is as it was, but for the hits, which can be brought back.
    assert len(list((tmp_path / "material").glob("*/*.jpg"))) == 1100
    assert len(list((tmp_path / "store" / "accept").iterdir())) == 300
    put_away = len(list((tmp_path / "put-away").glob("*.quarantined")))
    assert put_away == 10 - len(list((tmp_path / "store" / "reject").iterdir())) > 0


def test_the_guides_links_and_policies_are_there() -> None:
    for name in ("guide.md", "models.md"):
        text = (ROOT / "docs" / name).read_text()
        for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
            assert (ROOT / "docs" / link).exists(), (name, link)
        for policy in re.findall(r"policies/[\w-]+\.toml", text):
            assert (ROOT / policy).is_file(), (name, policy)
