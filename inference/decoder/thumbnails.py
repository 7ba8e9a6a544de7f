"""Small copies of frames, to tell whether two show the same and how much they differ.

The coarse one ranks: how much do two frames differ. The fine one, of the size that the model takes,
decides whether they show the same: at a coarser size a picture could hide behind its own mosaic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32  # of the coarse one, in cells
COARSE_SAME = 4  # of 255, in any cell: compression noise averages out to less
FINE_SAME = 8  # of 255, in any channel of any pixel that the model would see
_MOST_ACROSS = 4  # times the model's input: what is longer is compared less finely

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """`fine` is (height, width, channels), `coarse` (32 × 32 × channels,); from 0 to 255.

    The channels are RGB, or RGB times alpha and alpha.
    """

    fine: Array
    coarse: npt.NDArray[np.int16]

    @classmethod
    def of(cls, fine: Image.Image) -> Thumbnail:
        """From the fine one, in RGB or RGBa, whose sides are multiples of 32."""
        coarse = fine.reduce((fine.width // SIDE, fine.height // SIDE))
        return cls(np.asarray(fine), np.asarray(coarse, np.int16).reshape(-1))

    def shows_the_same(self, other: Thumbnail) -> bool:
        """Whether the model could hardly tell two frames apart."""
        if self.fine.shape != other.fine.shape:
            return False
        if np.abs(self.coarse - other.coarse).max() > COARSE_SAME:
            return False
        high, low = np.maximum(self.fine, other.fine), np.minimum(self.fine, other.fine)
        return int((high - low).max()) <= FINE_SAME

    def distance(self, other: Thumbnail) -> float:
        """The mean difference; frames with and without alpha are far from each other."""
        if self.coarse.shape != other.coarse.shape:
            return 255.0
        return float(np.abs(self.coarse - other.coarse).mean())


def fine_size(width: int, height: int, input_size: tuple[int, int]) -> tuple[int, int]:
    """The size of the fine thumbnail of a frame: what the model sees of all its regions."""
    across, down = (SIDE * math.ceil(side / SIDE) for side in input_size)
    ratio = width / height * down / across
    if ratio > 1:
        return across * min(_MOST_ACROSS, math.ceil(ratio)), down
    return across, down * min(_MOST_ACROSS, math.ceil(1 / ratio))


def thumbnail_of(image: Image.Image, size: tuple[int, int]) -> Thumbnail:
    """The thumbnail of a picture in a ColourMode, with a fine one of `size`."""
    if image.mode == "RGBA":
        image = image.convert("RGBa")
    small = image.resize(size, Image.Resampling.BOX, reducing_gap=1.0)
    if small.mode not in ("RGB", "RGBa"):
        small = small.convert("RGB")
    return Thumbnail.of(small)
