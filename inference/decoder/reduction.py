"""Reduces a region of a picture to a view of the model's size.

Every pixel of the region has its share in the view: the filters are antialiased, so a picture that
was made to turn into another one when it is subsampled (Xiao et al., "Seeing is Not Believing",
USENIX Security 2019) is seen as people see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from inference.decoder.colour import ColourSpace
from inference.decoder.media import Preprocessing, Region
from inference.decoder.renderings import Rendering, renderings
from inference.decoder.thumbnails import Thumbnail

# How much larger than the view a scaled JPEG decode stays: the model can't tell the difference.
SCALED_DECODE_MARGIN = 2

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True)
class Picture:
    """A decoded frame, upright. `image` may be smaller than the frame, in the same proportions."""

    image: Image.Image  # in a ColourMode
    colours: ColourSpace
    width: int
    height: int


class Frame(Protocol):
    """One frame of a file, of which more is made only when it is wanted."""

    @property
    def index(self) -> int:
        """Its place in the file, from 0."""

    @property
    def time(self) -> float:
        """When it is shown, in seconds."""

    def thumbnail(self, input_size: tuple[int, int]) -> Thumbnail:
        """Enough to tell whether two frames show the same to a model that takes `input_size`."""

    def picture(self) -> Picture:
        """The frame itself."""


def view_pixels(
    picture: Picture, region: Region, wanted: Preprocessing
) -> list[tuple[Rendering, bytes]]:
    """The views of a region: height × width × 3 bytes, RGB.

    One on white and one on black, where something shows through and it makes a difference; and one
    more, where the file's colour space makes quite another picture of it.
    """
    image, resampling = picture.image, _RESAMPLING[wanted.interpolation]
    across, down = image.width / picture.width, image.height / picture.height
    right, bottom = region.left + region.width, region.top + region.height
    box = (
        region.left * across,
        region.top * down,
        min(right * across, image.width),
        min(bottom * down, image.height),
    )
    size, offset = (wanted.width, wanted.height), (0, 0)
    if wanted.resize_mode == "longest":
        size, offset = _fitted(region, wanted)
    reduced = image.resize(size, resampling, box=box)
    return [
        (way, _on_canvas(layer, offset, wanted).tobytes())
        for way, layer in renderings(reduced, picture.colours)
    ]


def _fitted(region: Region, wanted: Preprocessing) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size and place of a region whose longer side is fitted."""
    ratio = max(region.width / wanted.width, region.height / wanted.height)
    size = (max(1, round(region.width / ratio)), max(1, round(region.height / ratio)))
    return size, ((wanted.width - size[0]) // 2, (wanted.height - size[1]) // 2)


def _on_canvas(layer: Image.Image, offset: tuple[int, int], wanted: Preprocessing) -> Image.Image:
    if layer.size == (wanted.width, wanted.height):
        return layer
    canvas = Image.new("RGB", (wanted.width, wanted.height), (wanted.fill_colour,) * 3)
    canvas.paste(layer, offset)
    return canvas
