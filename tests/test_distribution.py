"""The wheel that images and everybody else install: whole, of one version, and usable elsewhere."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from inference.demo.drawing import SHAPES

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed, and nothing else."""
    wheels, folder = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", wheels], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", folder, wheel], check=True)
    return folder


def run(installed: Path, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python with the installed wheel before all else, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(cwd)}
    environment.pop("XDG_CACHE_HOME", None)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_says_its_version_wherever_it_is_installed(installed: Path, tmp_path: Path) -> None:
    code = "from importlib.metadata import distribution as d; x = d('imagesafety')"
    done = run(installed, tmp_path, "-c", f"{code}; print(x.version, x.locate_file(''))")
    assert done.stdout.split() == [VERSION, str(installed)], done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["imagesafety.command", "scan", "--help"],
        ["imagesafety.command", "evaluate", "--help"],
        ["imagesafety.command", "calibrate", "--help"],
        ["imagesafety.command", "policy", "check", "demo"],
        ["gateway", "--help"],
        ["inference", "--help"],
        ["inference.fetch_weights", "demo"],
        ["inference.demo.drawing", "red", SHAPES[0], "-o", "drawn.png"],
    ],
    ids=" ".join,
)
def test_its_programs_run(installed: Path, tmp_path: Path, command: list[str]) -> None:
    done = run(installed, tmp_path, "-m", *command)
    assert done.returncode == 0, done.stderr


def test_a_scan_and_a_calibration_say_what_is_missing(installed: Path, tmp_path: Path) -> None:
    """Both note the version, which used to end them in an image."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "note.txt").write_text("no picture")
    target = ("--inference", f"unix:{tmp_path}/nobody.sock", "--policy", "demo")
    for command in (["scan", "store"], ["calibrate", "store", "--output", "calibrated.toml"]):
        done = run(installed, tmp_path, "-m", "imagesafety.command", *command, *target)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr, done.stderr


def test_each_file_of_the_packages_is_in_it(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "imagesafety", "gateway", "inference", "telemetry", "policies"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    missing = [
        name
        for name in listed
        if (ROOT / name).is_file()
        and not (installed / re.sub("^policies/", "imagesafety/policies/", name)).exists()
    ]
    assert missing == []


def test_there_is_one_version() -> None:
    """Tags of images in files and documents are that of pyproject.toml."""
    named = re.compile(r"(?:imagesafety(?:-[a-z]+)?:|newTag: |--tag \S+:)(\d+\.[\w.]*)")
    for pattern in ("Dockerfile", "*.md", "docs/*.md", "deploy/*", "k8s/**/*.yaml", "k8s/*.md"):
        for path in ROOT.glob(pattern):
            tags = set(named.findall(path.read_text()))
            assert tags <= {VERSION}, path
