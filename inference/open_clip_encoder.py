"""The encoder: an open_clip model, its texts in PyTorch, its pictures in the backend of choice."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from inference.backends.lanes import CpuShare
from inference.backends.loading import BackendOptions, choose_device, select_tower, speed_key
from inference.backends.tower import Embeddings, Picture
from inference.encoder import ModelDescription
from inference.model_source import ModelError, ModelSource
from inference.open_clip_model import OpenClipModel, load_open_clip, not_usable


class TextTower:
    """Embeds texts in float32; concepts are cached, so their speed does not matter."""

    def __init__(self, model: OpenClipModel, device: torch.device) -> None:
        self._model = model.model.to(device)
        self._tokenizer = model.tokenizer
        self._device = device
        self._one_at_a_time = threading.Lock()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Embeddings:
        """As Encoder.encode_texts."""
        tokens = self._tokenizer(list(texts)).to(self._device)
        with self._one_at_a_time:
            embeddings = self._model.encode_text(tokens)
            result: Embeddings = F.normalize(embeddings.float(), dim=-1).cpu().numpy()
        return result


class OpenClipEncoder:
    """An open_clip model on one device. See `concurrency` for calls from several threads."""

    def __init__(
        self,
        name: str,
        source: ModelSource,
        *,
        device: str = "auto",
        precision: str = "auto",
        share: CpuShare | None = None,
        backend: str = "pytorch",
        options: BackendOptions | None = None,
    ) -> None:
        """Loads the model, and chooses a backend if `backend` is "auto".

        `share` is what forward passes may use of a CPU; by default all of it. Raises ModelError.
        """
        share = share or CpuShare.of(threads=0, lanes=0)
        torch.set_num_threads(share.threads)
        where = choose_device(device)
        model = load_open_clip(name, source)
        options = options or BackendOptions()
        try:
            self._texts = TextTower(model, where)
            width = self._texts.encode(["a picture"]).shape[1]
            graph = model.image_graph
            self._tower = select_tower(
                model, where, self._texts.encode,
                backend=backend, precision=precision, share=share, options=options,
            )  # fmt: skip
            # What can't run fails here, and the first upload does not pay for what happens once.
            self._tower.encode([bytes(model.preprocessing.view_bytes)])
        except ModelError:
            raise
        except Exception as error:
            raise not_usable(name, error) from error
        self._description = ModelDescription(
            name=name,
            weights_digest=model.weights_digest,
            backend=self._tower.spec.name,
            embedding_width=width,
            preprocessing=model.preprocessing,
            speed_key=speed_key(model, graph, self._tower, share),
        )

    @property
    def description(self) -> ModelDescription:
        """Which model this is, and in which backend."""
        return self._description

    @property
    def concurrency(self) -> int:
        """As Encoder.concurrency."""
        return self._tower.concurrency

    def encode_images(self, pictures: Sequence[Picture]) -> Embeddings:
        """As Encoder.encode_images."""
        return self._tower.encode(pictures)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """As Encoder.encode_texts."""
        return self._texts.encode(texts)

    def close(self) -> None:
        """As Encoder.close."""
        self._tower.close()
