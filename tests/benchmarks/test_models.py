"""What docs/models.md says of models agrees with open_clip and with the policies that ship."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import open_clip
import pytest

from benchmarks.models import MODELS

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "models.md").read_text()
TABLE = re.findall(
    r"^\| `([\w./-]+)` \| \d+ M \(\d+ M\) \| (\d+)×\d+ \| (\d+) \|", GUIDE, re.MULTILINE
)


@pytest.mark.parametrize(("model", "size", "width"), TABLE)
def test_a_model_in_the_table_is_one_of_open_clips(model: str, size: str, width: str) -> None:
    architecture, tag = model.split("/")
    config = open_clip.get_model_config(architecture)
    assert config["vision_cfg"]["image_size"] == int(size)
    assert config["embed_dim"] == int(width)
    assert open_clip.get_pretrained_cfg(architecture, tag)


def test_what_is_measured_and_what_policies_ship_for_is_in_the_table() -> None:
    listed = {model for model, _, _ in TABLE}
    policies = (tomllib.loads(path.read_text()) for path in (ROOT / "policies").glob("*.toml"))
    assert {str(policy["model"]) for policy in policies} - {"demo"} <= listed
    assert set(MODELS) <= listed


def test_without_network_a_model_that_was_not_fetched_is_one_line(tmp_path: Path) -> None:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    flags = ["--model", "ViT-B-32-SigLIP2-256/webli", "--listen", "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-m", "inference", *flags],
        capture_output=True, text=True, timeout=200, cwd=ROOT, env=offline,
    )  # fmt: skip
    assert ended.returncode == 2
    said = [line for line in ended.stderr.splitlines() if line.startswith("inference: ")]
    assert len(said) == 1
    assert "ViT-B-32-SigLIP2-256/webli can't be loaded" in said[0]
    assert "Traceback" not in ended.stderr
