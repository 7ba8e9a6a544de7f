"""The encoder: an open_clip model in PyTorch. The one module of the service that imports torch."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from inference.decoder.media import Preprocessing
from inference.encoder import Embeddings, ModelDescription
from inference.model_source import LocalCheckpoint, ModelError, ModelSource, PretrainedTag

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class OpenClipEncoder:
    """An open_clip model on one device. Not for use from several threads at once."""

    def __init__(
        self,
        name: str,
        source: ModelSource,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        threads: int = 0,
    ) -> None:
        """Loads the model; `threads` is what PyTorch may use on a CPU, 0 for all cores.

        Raises ModelError.
        """
        if threads:
            torch.set_num_threads(threads)
        self._device = _choose_device(device)
        self._dtype = _choose_dtype(precision, self._device)
        try:
            self._load(name, source)
        except ModelError:
            raise
        except Exception as error:  # open_clip raises what the file and the network make it
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"model {name} can't be loaded: {reason}") from error

    def _load(self, name: str, source: ModelSource) -> None:
        model, self._tokenizer = _load(source)
        digest = _weights_digest(model)
        self._model = model.to(self._device).eval().requires_grad_(False)
        config = model.visual.preprocess_cfg
        self._mean = self._per_channel(config["mean"])
        self._std = self._per_channel(config["std"])
        self._description = ModelDescription(
            name=name,
            weights_digest=digest,
            backend=f"pytorch-{self._device.type}-{str(self._dtype).removeprefix('torch.')}",
            embedding_width=self.encode_texts(["a picture"]).shape[1],
            preprocessing=_preprocessing(config),
        )
        spec = self._description.preprocessing
        # What can't run fails here, and the first upload does not pay for what happens only once.
        self.encode_images([bytes(spec.height * spec.width * 3)])

    @property
    def description(self) -> ModelDescription:
        """Which model this is."""
        return self._description

    @property
    def concurrency(self) -> int:
        """One batch at a time."""
        return 1

    @torch.inference_mode()
    def encode_images(self, pictures: Sequence[bytes]) -> Embeddings:
        """As Encoder.encode_images."""
        spec = self._description.preprocessing
        array = np.frombuffer(b"".join(pictures), np.uint8)
        array = array.reshape(len(pictures), spec.height, spec.width, 3)
        # Bytes go over the bus, and become normalised floats on the other side.
        pixels = torch.from_numpy(array.copy()).to(self._device, non_blocking=True)
        inputs = pixels.permute(0, 3, 1, 2).float().div_(255)
        inputs = inputs.sub_(self._mean).div_(self._std)
        with self._autocast():
            embeddings = self._model.encode_image(inputs)
        return self._normalised(embeddings)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """As Encoder.encode_texts."""
        tokens = self._tokenizer(list(texts)).to(self._device)
        with self._autocast():
            embeddings = self._model.encode_text(tokens)
        return self._normalised(embeddings)

    def _autocast(self) -> AbstractContextManager[None]:
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def _normalised(self, embeddings: torch.Tensor) -> Embeddings:
        result: Embeddings = F.normalize(embeddings.float(), dim=-1).cpu().numpy()
        return result

    def _per_channel(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=self._device).view(1, 3, 1, 1)


def _choose_device(wanted: Device) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("device cuda: PyTorch finds no CUDA device on this machine")
    return torch.device(wanted)


def _choose_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


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


def _weights_digest(model: torch.nn.Module) -> str:
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
