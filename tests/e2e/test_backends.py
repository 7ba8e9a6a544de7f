"""Every way to run the model gives the same verdicts, through the command that people use."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inference.demo.drawing import random_scene, render
from tests.e2e.processes import inference
from tests.media import still

PICTURES = 40
OTHERS = [
    *(("pytorch", "bfloat16"), ("onnxruntime", "float32"), ("onnxruntime", "int8")),
    *(("openvino", "float32"), ("openvino", "bfloat16"), ("openvino", "int8")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures, and beside them what backends make of the model."""
    folder = tmp_path_factory.mktemp("backends")
    for seed in range(PICTURES):
        picture = render(random_scene(np.random.default_rng(seed), aspect=1.2), 240, 200)
        (folder / f"{seed:02}.png").write_bytes(still(picture))
    return folder


def scored(folder: Path, backend: str, precision: str) -> tuple[str, list[str]]:
    """The backend's name, and a verdict for each picture, as `imagesafety score` prints them."""
    flags = ("--precision", precision, "--cache-folder", str(folder / "cache"))
    with inference(*flags, backend=backend) as service:
        files = sorted(str(file) for file in folder.glob("*.png"))
        command = ["-m", "imagesafety.command", "score", "--inference", service.address, *files]
        ended = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    (name,) = set(re.findall(r"^\S+: image/png, .* \((.+)\)$", ended.stdout, re.MULTILINE))
    return name, re.findall(r"^  ((?:accept|reject): .*)$", ended.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[str]:
    name, verdicts = scored(folder, "pytorch", "float32")
    assert name == "pytorch-cpu-float32"
    assert len(verdicts) == PICTURES
    assert len(set(verdicts)) == 2
    return verdicts


@pytest.mark.parametrize(("backend", "precision"), OTHERS)
def test_verdicts_are_the_same_with_every_backend(
    folder: Path, expected: list[str], backend: str, precision: str
) -> None:
    assert scored(folder, backend, precision) == (f"{backend}-cpu-{precision}", expected)
