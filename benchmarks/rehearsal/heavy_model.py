"""A model so slow that beside it, gateways and clients on the same cores cost next to nothing.

Random weights: what it says of a picture means nothing, and is the same each time.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.material import FOLDER

# A ViT-S/16 (Touvron et al. 2021) of about 4.6 billion multiplications a picture, and next to no
# text tower.
CONFIG = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 224,
        "layers": 12,
        "width": 384,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 128,
        "heads": 2,
        "layers": 1,
    },
}
_POLICY = """model = "{model}"
[concepts]
red = ["something red"]
triangle = ["a triangle"]
[groups.any]
at_least = 2
thresholds = {{ red = 1.0, triangle = 1.0 }}
[[rules]]
name = "never"
all = ["any"]
action = "reject"
"""


@dataclass(frozen=True)
class HeavyModel:
    """The model setting of inference, and a policy file for it that accepts everything."""

    model: str
    policy: str


def heavy_model() -> HeavyModel:
    """Writes the files the first time."""
    folder = FOLDER / "rehearsal"
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = folder / "vit-s-16.json", folder / "vit-s-16.safetensors"
    if not weights.exists() or json.loads(config.read_text()) != CONFIG:
        config.write_text(json.dumps(CONFIG, indent=1))
        _make(config, weights)
    model = f"{config}@{weights}"
    policy = folder / "policy.toml"
    policy.write_text(_POLICY.format(model=model))
    return HeavyModel(model, str(policy))


def _make(config: Path, weights: Path) -> None:
    # Imported late: it takes seconds, and few rows need it.
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # it warns that the weights are random
    open_clip.add_model_config(config)
    state = open_clip.create_model(config.stem).state_dict()
    logging.disable(logging.NOTSET)
    unfinished = weights.with_suffix(".unfinished")
    save_file({name: value.contiguous() for name, value in state.items()}, unfinished)
    unfinished.replace(weights)
