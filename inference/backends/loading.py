"""Gives a loaded model its image tower, as the settings say."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from inference.backends import candidates
from inference.backends.cache import BackendCache
from inference.backends.calibration import Calibration
from inference.backends.candidates import Wish
from inference.backends.factory import TowerFactory, pytorch_tower
from inference.backends.lanes import CpuShare
from inference.backends.machine import cpu_facts, cpu_limit, versions
from inference.backends.measurement import takes_at_most
from inference.backends.pytorch_tower import ImageGraph
from inference.backends.selection import Selection
from inference.backends.tower import (
    FROM_FILES,
    Device,
    Embeddings,
    ImageTower,
    PictureSize,
    Precision,
    TowerSpec,
)
from inference.backends.verdicts import VerdictCheck
from inference.model_source import ModelError
from inference.open_clip_model import OpenClipModel

FAST_ENOUGH = 0.010
"""Seconds a picture may take PyTorch on a CPU for nothing else to be tried."""

EncodeTexts = Callable[[Sequence[str]], Embeddings]

log = logging.getLogger("inference")


@dataclass(frozen=True)
class BackendOptions:
    """What the choice of a backend may take and keep."""

    seconds: float = 300.0
    cache: BackendCache = field(default_factory=lambda: BackendCache(None))
    calibration_folder: Path | None = None
    max_batch: int = 64


def choose_device(wanted: str) -> torch.device:
    """The device of the setting `device`. Raises ModelError."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("device cuda: PyTorch finds no CUDA device on this machine")
    return torch.device(wanted)


def select_tower(
    model: OpenClipModel,
    device: torch.device,
    encode_texts: EncodeTexts,
    *,
    backend: str,
    precision: str,
    share: CpuShare,
    options: BackendOptions,
) -> ImageTower:
    """The tower for a model; PyTorch's own half of it is dropped if the tower has a copy.

    Raises ModelError for a backend that can't be had, and what a backend raises for a model that
    it can't run.
    """
    wish = Wish.of(backend, precision)
    where: Device = "cuda" if device.type == "cuda" else "cpu"
    half: Precision = "bfloat16"
    if where == "cuda" and not torch.cuda.is_bf16_supported():
        half = "float16"
    exact = TowerSpec("pytorch", where, "float32")
    if wish.backend is None:
        specs = candidates.candidates(wish, where, half)
        if not specs:
            raise ModelError(f"no backend has precision {precision} on this machine")
    else:
        specs = [candidates.named(wish, where, half)]

    graph = model.image_graph
    size = PictureSize(model.preprocessing.height, model.preprocessing.width)
    if len(specs) == 1 and specs[0].backend not in FROM_FILES:
        tower = pytorch_tower(specs[0], graph, size, share, options.max_batch)
        tower.prepare()
    else:
        reference = pytorch_tower(exact, graph, size, share, options.max_batch)
        cache = options.cache
        if cache.refused:
            specs = _without_files(specs, cache.refused)
        with cache.workspace() as workspace:
            factory = TowerFactory(
                graph,
                size,
                model.weights_digest,
                calibration=Calibration(options.calibration_folder),
                cache=cache,
                share=share,
                max_batch=options.max_batch,
                workspace=workspace,
            )
            verdicts = VerdictCheck(model.name, encode_texts)
            selection = Selection(specs, reference, factory, cache, verdicts, _hardware(where))
            if wish.backend is not None:
                tower = selection.by_name(specs[0])
            elif remembered := selection.remembered():
                tower = remembered
            elif where == "cpu" and specs[0] == exact and _is_fast(reference, model):
                log.info("%s is fast enough for this model: no other backend is tried", exact.name)
                tower = selection.settled(exact)
            else:
                tower = selection.measured(options.seconds)
    if tower.spec != exact or where == "cuda":
        model.drop_image_tower()
    return tower


def speed_key(model: OpenClipModel, graph: ImageGraph, tower: ImageTower, share: CpuShare) -> str:
    """A digest of all that the time of a batch depends on, but for its size."""
    facts = {
        "weights": model.weights_digest,
        "graph": repr(graph),
        "tower": tower.spec.name,
        "hardware": _hardware(tower.spec.device),
        "limit": cpu_limit(),
        "share": asdict(share),
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _without_files(specs: Sequence[TowerSpec], reason: str) -> list[TowerSpec]:
    """What can be run without exporting the model. Raises ModelError if nothing can.

    Where the folder for it can't be used, /tmp has no room for gigabytes either: in a container it
    is small, or memory.
    """
    left = [spec for spec in specs if spec.backend not in FROM_FILES]
    if not left:
        raise ModelError(f"backend {specs[0].backend} needs the cache folder: {reason}")
    log.warning("only PyTorch is tried, because other backends need the cache folder")
    return left


def _hardware(device: Device) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else str(cpu_facts())


def _is_fast(tower: ImageTower, model: OpenClipModel) -> bool:
    blank = bytes(model.preprocessing.view_bytes)
    return takes_at_most(FAST_ENOUGH, tower, blank)
