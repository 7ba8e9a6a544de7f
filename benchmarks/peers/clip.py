"""What the peers serve: open_clip's own preprocessing and encoder, and the concepts' embeddings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.serving.material import CONCEPTS


class Clip:
    """A model in bfloat16 on the CPU; JPEG bytes in, similarities out."""

    def __init__(self, model: str, threads: int) -> None:
        """`model` is ARCH@FILE; `threads` are those of a forward pass."""
        torch.set_num_threads(threads)
        architecture, _, checkpoint = model.partition("@")
        loaded, _, self._preprocess = open_clip.create_model_and_transforms(
            architecture, pretrained=checkpoint, precision="pure_bf16"
        )
        self._model: Any = loaded.eval().requires_grad_(False)
        self._concepts = self._embed_concepts(open_clip.get_tokenizer(architecture))

    @torch.inference_mode()
    def _embed_concepts(self, tokenizer: Any) -> torch.Tensor:
        rows = []
        for concept in CONCEPTS:
            texts = F.normalize(self._model.encode_text(tokenizer(concept.prompts)).float(), dim=-1)
            rows.append(F.normalize(texts.mean(0), dim=-1))
        return torch.stack(rows)

    def pixels(self, data: bytes) -> torch.Tensor:
        """A picture as the model wants it: (3, 224, 224), normalised."""
        picture: torch.Tensor = self._preprocess(Image.open(io.BytesIO(data)))
        return picture

    @torch.inference_mode()
    def similarities(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """One row for each picture, one column for each concept."""
        embeddings = self._model.encode_image(torch.stack(list(pictures)).bfloat16())
        return F.normalize(embeddings.float(), dim=-1) @ self._concepts.T
