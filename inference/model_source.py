"""Where a model comes from: the `model` setting, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo"


class ModelError(ValueError):
    """A model that can't be used; the message is one line."""


@dataclass(frozen=True)
class PretrainedTag:
    """An open_clip architecture and one of its pretrained tags, which open_clip may download."""

    architecture: str
    tag: str


@dataclass(frozen=True)
class LocalCheckpoint:
    """An open_clip architecture, by name or as a JSON config file, and a checkpoint file."""

    architecture: str | Path
    checkpoint: Path


ModelSource = PretrainedTag | LocalCheckpoint


def parse_model(setting: str) -> ModelSource:
    """Reads `ARCH/TAG`, `ARCH@FILE` or `demo`. Raises ModelError."""
    if setting == DEMO:
        return LocalCheckpoint(
            DEMO_FOLDER / "open_clip_config.json", DEMO_FOLDER / "open_clip_model.safetensors"
        )
    architecture, at, file = setting.partition("@")
    if at:
        config = Path(architecture) if architecture.endswith(".json") else None
        for path in filter(None, (config, Path(file))):
            if not path.is_file():
                raise ModelError(f"model {setting}: there is no file {path}")
        return LocalCheckpoint(config or architecture, Path(file))
    architecture, _, tag = setting.partition("/")
    if not architecture or not tag:
        raise ModelError(f"model {setting!r} is neither ARCH/TAG nor ARCH@FILE nor {DEMO}")
    return PretrainedTag(architecture, tag)
