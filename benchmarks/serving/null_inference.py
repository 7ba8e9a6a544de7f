"""The inference service without a model: `… null_inference dispatch|decode FLAGS OF INFERENCE`.

What is left is what the service itself costs. With `decode`, files are decoded as ever; with
`dispatch`, every file has one ready view at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

import numpy as np
import numpy.typing as npt

from inference import server
from inference.decoder.media import (
    Background,
    DecodedMedia,
    Facts,
    Preprocessing,
    Region,
    View,
)
from inference.decoder_pool import DecoderPool
from inference.encoder import ModelDescription
from inference.settings import Settings

Embeddings = npt.NDArray[np.float32]

_WIDTH = 512
_CLIP = Preprocessing(224, 224, "shortest", "bicubic", 0)
_FACTS = Facts("image/jpeg", 256, 256, frames=1, total_frames=1, duration=0.0, partial="")
_VIEW = View(0, 0.0, Region(0, 0, 256, 256), Background.NONE)
_MEDIA = DecodedMedia(_FACTS, (_VIEW,), (bytes(_CLIP.view_bytes),))


class NullEncoder:
    """Embeds everything at once, and always the same way."""

    concurrency = 1

    def __init__(self, settings: Settings) -> None:
        self._name = settings.model

    @property
    def description(self) -> ModelDescription:
        """As Encoder.description."""
        return ModelDescription(
            name=self._name,
            weights_digest=f"sha256:{'0' * 64}",
            backend="null",
            embedding_width=_WIDTH,
            preprocessing=_CLIP,
        )

    def encode_images(self, pictures: Sequence[object]) -> Embeddings:
        """As Encoder.encode_images."""
        return np.full((len(pictures), _WIDTH), _WIDTH**-0.5, np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """As Encoder.encode_texts."""
        return np.full((len(texts), _WIDTH), _WIDTH**-0.5, np.float32)

    def close(self) -> None:
        """As Encoder.close."""


@contextlib.asynccontextmanager
async def decoded_at_once(*_: object, **__: object) -> AsyncIterator[DecodedMedia]:
    """In the place of DecoderPool.decoded."""
    yield _MEDIA


if __name__ == "__main__":
    # From outside: the service has no switch for this.
    server.load_encoder = NullEncoder
    if sys.argv[1] == "dispatch":
        DecoderPool.decoded = decoded_at_once  # type: ignore[method-assign]
    sys.exit(server.main(sys.argv[2:]))
