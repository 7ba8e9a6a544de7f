"""What `imagesafety calibrate` promises of drawings holds for drawings that it never saw.

`CALIBRATE_PICTURES=5000 .venv/bin/python -m pytest tests/e2e/test_calibrate.py` asks for the
budget of 10 in 10 000 on so many harmless pictures, and looks at four times as many fresh ones; by
itself, the test has 600 and asks for 1 in 100.
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imagesafety.policy_file import load_policy
from imagesafety.provenance_file import find_provenance
from inference.demo.material import draw_all
from tests.e2e.conftest import Pair

ROOT = Path(__file__).parents[2]
PICTURES = int(os.environ.get("CALIBRATE_PICTURES", "600"))
IS_FULL = PICTURES >= 5000
BUDGET = (10 if IS_FULL else 100, 10_000)

# Rejects whatever has something red in it, and is much too eager.
RED = """
model = "demo"
concepts.red = ["something red", "a red shape"]
groups.colour.thresholds.red = -0.1
[[rules]]
name = "red"
all = ["colour"]
"""


def imagesafety(*arguments: str | Path) -> str:
    """Runs the command; what it prints."""
    command = [sys.executable, "-m", "imagesafety.command", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout


def label_by_colour(folder: Path) -> None:
    """Makes a second list of the drawings: what has something red in it is to be rejected."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{row['path']},{'reject' if row['red'] == 'true' else 'accept'}" for row in rows]
    (folder / "red.csv").write_text("\n".join(["path,label", *lines]) + "\n")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    draw_all(folder / "known", PICTURES, 0, seed=1, size=96)
    draw_all(folder / "fresh", 4 * PICTURES, PICTURES // 10, seed=2, size=96)
    for drawn in ("known", "fresh"):
        label_by_colour(folder / drawn)
    return folder


class Calibration:
    """A calibration by drawings that are known, looked at with fresh ones."""

    def __init__(self, pair: Pair, policy: Path, material: Path, labels: str, *more: str) -> None:
        self.policy, self.fresh = policy, material / "fresh" / labels
        self.calibrated = policy.with_suffix(".calibrated.toml")
        options = ("--inference", pair.inference, "--cache", material / "scores")
        self.options: tuple[str | Path, ...] = options
        self.said = imagesafety(
            *("calibrate", material / "known" / labels, "--policy", policy),
            *("--output", self.calibrated, "--max-false-rejects", "/".join(map(str, BUDGET))),
            *self.options,
            *more,
        )
        provenance = find_provenance(load_policy(self.calibrated).text)
        assert provenance is not None
        self.provenance = provenance

    def rates(self, policy: Path) -> dict[str, Any]:
        """How often a policy is wrong about fresh drawings."""
        arguments = ("evaluate", self.fresh, "--policy", policy, "--json", *self.options)
        found: dict[str, Any] = json.loads(imagesafety(*arguments))["rates"]
        return found

    def check_promise(self) -> dict[str, Any]:
        """The promise is what was asked for, and is kept; the rates."""
        promised, (count, images) = self.provenance.false_rejects, BUDGET
        assert promised.high <= count / images
        rates = self.rates(self.calibrated)
        assert promised.low <= rates["false_rejects"]["share"] <= promised.high, self.said
        # A threshold that nothing reaches would keep any promise.
        assert rates["false_accepts"]["share"] < 0.1, self.said
        return rates


def test_fresh_drawings_are_rejected_as_rarely_as_promised(
    pair: Pair, material: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "demo.toml"
    shutil.copy(ROOT / "policies" / "demo.toml", policy)
    done = Calibration(pair, policy, material, "labels.csv")
    assert done.provenance.material.benign == PICTURES
    rates = done.check_promise()
    assert rates["false_rejects"]["of"] == 4 * PICTURES


def test_a_policy_that_rejects_too_much_is_tamed(
    pair: Pair, material: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "red.toml"
    policy.write_text(RED)
    done = Calibration(pair, policy, material, "red.csv")
    assert done.rates(policy)["false_rejects"]["share"] > done.provenance.false_rejects.high
    done.check_promise()


def test_a_policy_keeps_its_line_ends(pair: Pair, material: Path, tmp_path: Path) -> None:
    policy = tmp_path / "red.toml"
    policy.write_bytes(b"\xef\xbb\xbf" + RED.replace("\n", "\r\n").encode())
    done = Calibration(pair, policy, material, "red.csv")
    data = done.calibrated.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > RED.count("\n")
    assert find_provenance(load_policy(done.calibrated).text) is not None


def test_overrides_count_before_labels(pair: Pair, material: Path, tmp_path: Path) -> None:
    policy = tmp_path / "red.toml"
    policy.write_text(RED)
    picture = material / "known" / "accept" / "000000.jpg"
    denied = hashlib.sha256(picture.read_bytes()).hexdigest()
    overrides = tmp_path / "overrides.csv"
    overrides.write_text(f"sha256,pdq,action,rule,note\n{denied},,deny,,\n")
    done = Calibration(pair, policy, material, "labels.csv", "--overrides", str(overrides))
    assert done.provenance.material.benign == PICTURES - 1
    assert done.provenance.material.rejected == 1
