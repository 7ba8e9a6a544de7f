"""What the benchmarks serve: ready pictures, a checkpoint with random weights, and policies."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

from benchmarks.decode import photo

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "benchmarks"
ARCHITECTURE = "ViT-B-32"
SMALL, LARGE = "10 kB", "220 kB"

# Of each kind so many different files that nobody finds its input in a processor's cache.
_COUNT = 48
_SIZES = {SMALL: (256, 256, 70), LARGE: (1600, 1200, 60)}  # width, height, JPEG quality
_NAMES = ("child", "adult", "nudity", "violence", "weapon", "meme", "animal", "landscape")


@dataclass(frozen=True)
class Concept:
    """A name and its prompts, as every measured service gets them."""

    name: str
    prompts: tuple[str, str]


CONCEPTS = tuple(Concept(name, (f"a photo of {name}", f"a drawing of {name}")) for name in _NAMES)


def pictures(kind: str) -> list[bytes]:
    """The JPEG files of a kind; drawn the first time."""
    width, height, quality = _SIZES[kind]
    folder = FOLDER / f"{width}x{height}-q{quality}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.jpg" for number in range(_COUNT)]
    for seed, path in enumerate(paths):
        if not path.exists():
            data = io.BytesIO()
            photo(seed, width, height).save(data, "JPEG", quality=quality)
            _write(path, data.getvalue())
    return [path.read_bytes() for path in paths]


def triton_request_path(folder: Path, kind: str, number: int) -> Path:
    """Where the gRPC message for Triton is that brings a file."""
    return folder / f"{kind} {number:02}"


def triton_requests(folder: Path, kind: str) -> list[bytes]:
    """The messages of all files of a kind."""
    return [triton_request_path(folder, kind, number).read_bytes() for number in range(_COUNT)]


def model() -> str:
    """The model setting: ViT-B-32 with seeded random weights, written the first time."""
    path = FOLDER / f"{ARCHITECTURE}-random.safetensors"
    if not path.exists():
        # Imported late: whoever only sends files needs no torch.
        import open_clip
        import torch
        from safetensors.torch import save

        FOLDER.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        logging.disable(logging.WARNING)  # it warns that the weights are random
        weights = open_clip.create_model(ARCHITECTURE).state_dict()
        logging.disable(logging.NOTSET)
        _write(path, save({name: value.contiguous() for name, value in weights.items()}))
    return f"{ARCHITECTURE}@{path}"


def model_flags() -> list[str]:
    """The flags of the inference service for that model."""
    # What was measured and exported for random weights is of no use to anybody else.
    return ["--model", model(), "--cache-folder", str(FOLDER / "backends")]


def policy(model_name: str, name: str) -> Path:
    """A policy file for this model that accepts everything, after having compared everything."""
    lines = [f'model = "{model_name}"', "[concepts]"]
    lines += [
        f'{concept.name} = ["{concept.prompts[0]}", "{concept.prompts[1]}"]' for concept in CONCEPTS
    ]
    lines += ["[groups.any]", f"at_least = {len(CONCEPTS)}"]
    lines += [f"thresholds = {{ {', '.join(f'{concept.name} = 1.0' for concept in CONCEPTS)} }}"]
    lines += ["[[rules]]", 'name = "never"', 'all = ["any"]', 'action = "reject"', ""]
    path = FOLDER / f"{name}.toml"
    _write(path, "\n".join(lines).encode())
    return path


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: an interrupted run leaves nothing behind that looks finished."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)
