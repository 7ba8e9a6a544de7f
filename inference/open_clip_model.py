"""Loads an open_clip model: the weights, the tokenizer, and how it wants its pictures."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch.overrides import TorchFunctionMode

from inference.backends.pytorch_tower import ImageGraph
from inference.decoder.media import Preprocessing
from inference.model_source import LocalCheckpoint, ModelError, ModelSource, PretrainedTag


@dataclass(frozen=True)
class OpenClipModel:
    """A loaded model, in float32 on the CPU."""

    name: str
    model: Any
    tokenizer: Any
    weights_digest: str
    preprocessing: Preprocessing

    @property
    def image_graph(self) -> ImageGraph:
        """Its image tower, from bytes to rows of length 1."""
        config = self.model.visual.preprocess_cfg
        graph = ImageGraph(self.model.visual, config["mean"], config["std"])
        return graph.eval().requires_grad_(False)

    def drop_image_tower(self) -> None:
        """Gives its memory back, when another backend has a copy of the weights."""
        del self.model.visual


def load_open_clip(name: str, source: ModelSource) -> OpenClipModel:
    """Loads a model. Raises ModelError."""
    try:
        with _NoRandomWeights():
            model, tokenizer = _load(source)
        return OpenClipModel(
            name=name,
            model=model.eval().requires_grad_(False),
            tokenizer=tokenizer,
            weights_digest=_digest(model),
            preprocessing=_preprocessing(model.visual.preprocess_cfg),
        )
    except ModelError:
        raise
    except Exception as error:  # open_clip raises what the file and the network make it
        raise not_usable(name, error) from error


def not_usable(name: str, error: Exception) -> ModelError:
    """The one line for whatever a library raised."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return ModelError(f"model {name} can't be loaded: {reason}")


class _NoRandomWeights(TorchFunctionMode):
    """A mode without random weights: the checkpoint has all, or its loading fails.

    For the demo model that is a third of what loading takes, for larger ones seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _load(source: ModelSource) -> tuple[Any, Any]:
    """The model, in float32 on the CPU, and its tokenizer."""
    match source:
        case PretrainedTag(architecture, tag):
            return _load_tag(architecture, tag)
        case LocalCheckpoint(Path() as config, checkpoint):
            return _load_config(config, checkpoint)
        case LocalCheckpoint(architecture, checkpoint):
            _check_architecture(str(architecture))
            model = open_clip.create_model(str(architecture), pretrained=str(checkpoint))
            return model, open_clip.get_tokenizer(str(architecture))


def _load_tag(architecture: str, tag: str) -> tuple[Any, Any]:
    _check_architecture(architecture)
    pretrained = open_clip.get_pretrained_cfg(architecture, tag)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
        raise ModelError(f"model {architecture}/{tag}: open_clip knows the tags {tags or 'none'}")
    # OpenAI's weights and some others were trained with another activation than the config of the
    # same name says; open_clip only warns, and its cosines are wrong then.
    quick_gelu = bool(pretrained.get("quick_gelu", False))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="QuickGELU mismatch")
        model = open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=quick_gelu)
    return model, open_clip.get_tokenizer(architecture)


def _load_config(config: Path, checkpoint: Path) -> tuple[Any, Any]:
    """Loads by a JSON file: a model config, or one with `model_cfg` and `preprocess_cfg`."""
    content = json.loads(config.read_text(encoding="utf-8"))
    if "model_cfg" not in content:
        content = {"model_cfg": content}
    # open_clip takes a config of one's own, with its preprocessing, from a folder only.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(content))
        name = f"local-dir:{folder}"
        logging.disable(logging.WARNING)  # it warns that there are no weights: they come next
        try:
            model = open_clip.create_model(name, load_weights=False)
            tokenizer = open_clip.get_tokenizer(name)
        finally:
            logging.disable(logging.NOTSET)
    open_clip.load_checkpoint(model, str(checkpoint))
    return model, tokenizer


def _check_architecture(architecture: str) -> None:
    if architecture not in open_clip.list_models():
        raise ModelError(f"open_clip knows no architecture {architecture!r}")


def _digest(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values: the same for any file that holds them."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    fill = config.get("fill_color", 0)
    return Preprocessing(
        width=width,
        height=height,
        resize_mode=config.get("resize_mode") or "shortest",
        interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        fill_colour=fill if isinstance(fill, int) else fill[0],
    )
