"""What `evaluate` and `calibrate` refuse or say before they ask anybody for scores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagesafety.command import main
from tests.e2e.processes import free_port

POLICY = """
model = "demo"
concepts = { red = ["red"] }
groups.g.thresholds = { red = 0.5 }
[[rules]]
name = "stop"
all = ["g"]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy, where nobody scores."""
    (tmp_path / "policy.toml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGESAFETY_INFERENCE", f"127.0.0.1:{free_port()}")
    return tmp_path


def evaluate(*arguments: str) -> int:
    return main(["evaluate", *arguments, "--policy", "policy.toml", "--cache", "scores"])


def calibrate(*arguments: str) -> int:
    output = ("--output", "new.toml", "--cache", "scores")
    return main(["calibrate", *arguments, "--policy", "policy.toml", *output])


BUDGET = ("--max-false-rejects", "1%")


def test_a_column_that_is_no_label_is_named_by_both(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "labels.csv").write_text("path,label,Red\na.png,accept,true\n")
    said = "imagesafety: columns that are no labels: Red\n"
    assert calibrate("labels.csv", *BUDGET) == 1  # nobody scores
    assert capsys.readouterr().err.startswith(said)
    assert evaluate("labels.csv") == 1
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("report", ["material", "material/report", "link/deep/report"])
def test_a_report_among_the_images_is_refused_and_not_made(
    here: Path, capsys: pytest.CaptureFixture[str], report: str
) -> None:
    (here / "material" / "accept").mkdir(parents=True)
    (here / "link").symlink_to("material")
    assert evaluate("material", "--report", report) == 2
    assert capsys.readouterr().err.startswith(f"imagesafety: {report}: is inside the material")
    assert [path.name for path in (here / "material").iterdir()] == ["accept"]


@pytest.mark.parametrize(
    "options",
    [
        ("--cost-false-reject", "3"),
        ("--cost-false-accept", "3"),
        ("--cost-false-reject", "3", "--cost-false-accept", "3"),
    ],
)
def test_two_ways_to_say_costs_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    (here / "accept").mkdir()
    assert calibrate(".", "--cost", "5", *options, "--prevalence", "0.1") == 2
    assert "either --cost or --cost-false-reject and" in capsys.readouterr().err


def test_folders_that_are_nearly_labels_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Accept", "Reject"):
        (here / "material" / name).mkdir(parents=True)
    assert calibrate("material", *BUDGET) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("imagesafety: material/Accept: looks like a label, which is written acc")


def test_what_an_encoding_lacks_is_escaped() -> None:
    command = [sys.executable, "-m", "imagesafety.command", "evaluate", "--help"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"not-\u2026" in ended.stdout
