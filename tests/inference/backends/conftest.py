"""A small model of open_clip's, as files, and pictures for it."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from inference.demo.drawing import random_scene, render
from tests.inference.test_open_clip_encoder import TINY

SIDE = 48


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The `model` setting of two towers with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    torch.manual_seed(5)
    torch.save(open_clip.CLIP(**TINY).state_dict(), folder / "weights.pt")
    return f"{folder}/tiny.json@{folder}/weights.pt"


@pytest.fixture(scope="session")
def views() -> list[bytes]:
    rng = np.random.default_rng(11)
    return [render(random_scene(rng), SIDE, SIDE).tobytes() for _ in range(7)]


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"
