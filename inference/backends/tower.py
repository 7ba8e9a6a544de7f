"""What an image tower is, and the names of the ways to run one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Backend = Literal["pytorch", "compiled", "cuda-graphs", "onnxruntime", "openvino"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Device = Literal["cpu", "cuda"]

Picture = bytes | memoryview
"""height × width × 3 RGB bytes, of the size that the model takes."""

Pixels = npt.NDArray[np.uint8]
"""(N, H, W, 3) uint8 RGB."""

Embeddings = npt.NDArray[np.float32]
"""(N, D) float32, each row of length 1."""

PRECISIONS: dict[Backend, tuple[Precision, ...]] = {
    "pytorch": ("float32", "bfloat16", "float16"),
    "compiled": ("float32", "bfloat16", "float16"),
    "cuda-graphs": ("float32", "bfloat16", "float16"),
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
}

FROM_FILES: tuple[Backend, ...] = ("onnxruntime", "openvino")
"""The backends that run an exported model file."""


@dataclass(frozen=True)
class TowerSpec:
    """A way to run a model's image tower."""

    backend: Backend
    device: Device
    precision: Precision

    @property
    def name(self) -> str:
        """As responses name it, for example `openvino-cpu-int8`."""
        match self.backend:
            case "compiled":
                return f"pytorch-{self.device}-{self.precision}-compiled"
            case "cuda-graphs":
                return f"pytorch-{self.device}-{self.precision}-graphs"
            case _:
                return f"{self.backend}-{self.device}-{self.precision}"


class ImageTower(Protocol):
    """The half of a model that embeds pictures, from uint8 to rows of length 1."""

    @property
    def spec(self) -> TowerSpec:
        """Which way this is."""

    @property
    def concurrency(self) -> int:
        """How many calls of `encode` may overlap, from different threads."""

    def encode(self, pictures: Sequence[Picture]) -> Embeddings:
        """Embeds one or more pictures. What is not finite comes back as it is."""

    def prepare(self) -> None:
        """Makes what later calls need: files may be gone after this, and nothing waits for it."""

    def close(self) -> None:
        """Gives back what the tower holds; it is not used after that."""


@dataclass(frozen=True)
class PictureSize:
    """The size of the pictures that a model takes, in pixels."""

    height: int
    width: int

    def stacked(self, pictures: Sequence[Picture]) -> Pixels:
        """Copies pictures into one array. Raises ValueError for one of another size."""
        pixels = np.empty((len(pictures), self.height, self.width, 3), np.uint8)
        self.copy(pictures, pixels)
        return pixels

    def copy(self, pictures: Sequence[Picture], pixels: Pixels) -> None:
        """Copies pictures into the first rows of `pixels`, which is contiguous.

        Raises ValueError for a picture of another size.
        """
        rows = pixels.reshape(len(pixels), -1)
        for row, picture in zip(rows, pictures, strict=False):
            row[:] = np.frombuffer(picture, np.uint8)
