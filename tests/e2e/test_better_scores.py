"""`imagesafety calibrate --better-scores` with the real service and drawn pictures."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagesafety.policy_file import load_policy
from imagesafety.probe_file import parse_probe
from inference.demo.material import draw_all
from tests.e2e.conftest import Pair
from tests.e2e.processes import inference

# The prompt for `red` says nothing of red; the one for `circle` is as the model was taught.
POLICY = """\
# Mine.
model = "demo"

[concepts]
red = ["a shape"]  # a poor one
circle = ["a circle"]

[groups.colour]
thresholds = { red = 0.107 }

[groups.shape]
thresholds = { circle = 0.107 }

[[rules]]
name = "red"
all = ["colour"]

[[rules]]
name = "circles"
all = ["shape"]
mode = "off"
"""


def draw_by_colour(folder: Path, accept: int, reject: int, seed: int) -> Path:
    """Pictures labelled by what is in them, and to be rejected if there is something red."""
    draw_all(folder, accept=accept, reject=reject, seed=seed, size=64)
    table = folder / "labels.csv"
    lines = ["path,label,red,circle"]
    for row in table.read_text().splitlines()[1:]:
        path, _, red, _, _, circle = row.split(",")
        lines.append(f"{path},{'reject' if red == 'true' else 'accept'},{red},{circle}")
    table.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_by_colour(tmp_path_factory.mktemp("drawings"), accept=1400, reject=200, seed=5)


def calibrate(
    pair_inference: str, material: Path, folder: Path, *flags: str, name: str = "new.toml"
) -> subprocess.CompletedProcess[str]:
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    command = [sys.executable, "-m", "imagesafety.command", "calibrate", str(material)]
    command += ["--policy", str(policy), "--output", str(folder / name)]
    command += ["--inference", pair_inference, "--cache", str(folder.parent / "scores.sqlite3")]
    command += ["--max-false-rejects", "5%", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_a_probe_for_a_poor_prompt_is_kept_and_does_in_the_service_what_it_did_here(
    pair: Pair, drawings: Path, tmp_path: Path
) -> None:
    plain = calibrate(pair.inference, drawings / "labels.csv", tmp_path, name="plain.toml")
    assert plain.returncode == 0, plain.stderr
    done = calibrate(
        pair.inference,
        drawings / "labels.csv",
        tmp_path,
        "--better-scores",
        "--neutral",
        "a picture",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    kept = [line.split("   ")[0].strip() for line in lines if line.endswith("kept")]
    assert kept == ["trained probe", "as they are"]
    assert "Better scores for red." in done.stdout

    policy = load_policy(tmp_path / "new.toml")
    red, circle = policy.concepts
    assert red.probe is not None
    assert circle.probe is None
    data = (tmp_path / red.probe.file).read_bytes()
    assert hashlib.sha256(data).hexdigest() == red.probe.sha256
    trained = parse_probe(data).trained
    assert trained is not None
    assert trained.true + trained.false < 1600
    text = (tmp_path / "new.toml").read_text()
    assert '# red = ["a shape"]  # a poor one\nred = { probe = "' in text
    assert "# Mine.\n" in text

    # Fresh pictures, scored by the service with the probe: what the calibration says is so.
    fresh = draw_by_colour(tmp_path / "fresh", accept=700, reject=100, seed=6)
    before = evaluated(pair.inference, fresh, tmp_path / "plain.toml", tmp_path)
    found = evaluated(pair.inference, fresh, tmp_path / "new.toml", tmp_path)
    assert auc(before, "red") < 0.85
    assert auc(found, "red") > 0.99
    assert before["rates"]["false_accepts"]["share"] > 0.8
    assert found["rates"]["false_accepts"]["share"] < 0.05
    assert found["rates"]["false_rejects"]["share"] < 0.08  # 5 % were asked for


def evaluated(address: str, folder: Path, policy: Path, scratch: Path) -> dict[str, Any]:
    """What `imagesafety evaluate` says."""
    command = [sys.executable, "-m", "imagesafety.command", "evaluate"]
    command += [str(folder / "labels.csv"), "--policy", str(policy), "--inference", address]
    command += ["--cache", str(scratch / "fresh.sqlite3"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def auc(content: dict[str, Any], concept: str) -> float:
    """By labels of the concept."""
    values = {
        one["concept"]: one["auc"] for one in content["concepts"] if one["basis"] == "concept"
    }
    return float(values[concept])


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    with inference("--embeddings", "never") as service:
        yield service.address


def test_a_service_that_gives_no_embeddings_is_told_of_in_one_line(
    closed: str, drawings: Path, tmp_path: Path
) -> None:
    done = calibrate(closed, drawings / "labels.csv", tmp_path, "--better-scores")
    assert done.returncode == 1
    *_, first, second = done.stderr.splitlines()
    assert first.startswith("imagesafety: no scores: PERMISSION_DENIED (EMBEDDINGS_NOT_ALLOWED)")
    assert "certificate" in second
    assert not (tmp_path / "new.toml").exists()


def test_what_cannot_be_meant(drawings: Path, tmp_path: Path) -> None:
    nowhere = "127.0.0.1:1"
    done = calibrate(nowhere, drawings / "labels.csv", tmp_path, "--neutral", "x")
    said = "imagesafety: --neutral is for --better-scores\n"
    assert (done.returncode, done.stderr) == (2, said)
    done = calibrate(
        nowhere, drawings / "labels.csv", tmp_path, "--better-scores", "--overrides", "/nowhere.csv"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("imagesafety: /nowhere.csv: cannot be read")


def test_overrides_are_labels_too(pair: Pair, drawings: Path, tmp_path: Path) -> None:
    """With them all turned round, what is red is what is harmless."""
    rows = [line.split(",") for line in (drawings / "labels.csv").read_text().splitlines()[1:]]
    lines = ["sha256,pdq,action,rule,note"]
    for path, label, *_ in rows:
        digest = hashlib.sha256((drawings / path).read_bytes()).hexdigest()
        lines.append(f"{digest},,{'deny' if label == 'accept' else 'allow'},,")
    (tmp_path / "overrides.csv").write_text("\n".join(lines) + "\n")
    # Without labels of concepts, the decision stands in for those.
    bare = [",".join(row[:2]) for row in rows]
    (drawings / "bare.csv").write_text("\n".join(["path,label", *bare]) + "\n")
    flags = ("--better-scores", "--overrides", str(tmp_path / "overrides.csv"))
    done = calibrate(pair.inference, drawings / "bare.csv", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert "by labels of accept and reject" in done.stdout
    found = evaluated(pair.inference, drawings, tmp_path / "new.toml", tmp_path)
    assert auc(found, "red") < 0.05
