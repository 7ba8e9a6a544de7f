"""Reduces a region of a picture to a view of the model's size.

Every pixel of the region has its share in the view: the filters are antialiased, so a picture that
was made to turn into another one when it is subsampled (Xiao et al., "Seeing is Not Believing",
USENIX Security 2019) is seen as people see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.decoder.colour import ColourSpace
from inference.decoder.media import Background, Preprocessing, Region

Thumbnail = npt.NDArray[np.int16]
"""(3072,) or (4096,): 32×32 cells of RGB, or of RGB times alpha and alpha; from 0 to 255."""

THUMBNAIL_SIDE = 32
# Two thumbnails that differ by no more in any cell show the same. A cell is two pixels of the
# smallest model's input, seven of CLIP's; compression noise averages out to less.
SAME_WITHIN = 4
# How much larger than the view a scaled JPEG decode stays: the model can't tell the difference.
SCALED_DECODE_MARGIN = 2

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_BACKGROUNDS = {Background.WHITE: "white", Background.BLACK: "black"}


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

    def thumbnail(self) -> Thumbnail:
        """Enough to tell whether two frames of a file show the same."""

    def picture(self) -> Picture:
        """The frame itself."""


def view_pixels(picture: Picture, region: Region, wanted: Preprocessing) -> dict[Background, bytes]:
    """The view of a region: height × width × 3 bytes, RGB.

    There is one on white and one on black where something shows through and it makes a difference.
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
    return {
        background: _on_canvas(layer, offset, wanted).tobytes()
        for background, layer in _layers(reduced, picture.colours).items()
    }


def thumbnail_of(image: Image.Image) -> Thumbnail:
    """The thumbnail of a picture in a ColourMode."""
    if image.mode == "RGBA":
        image = image.convert("RGBa")
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = image.resize(side, Image.Resampling.BOX, reducing_gap=1.0)
    if small.mode not in ("RGB", "RGBa"):
        small = small.convert("RGB")
    return np.asarray(small, dtype=np.int16).reshape(-1)


def show_the_same(one: Thumbnail, other: Thumbnail) -> bool:
    """Whether a model could hardly tell two pictures apart."""
    return one.shape == other.shape and int(np.abs(one - other).max()) <= SAME_WITHIN


def _layers(reduced: Image.Image, colours: ColourSpace) -> dict[Background, Image.Image]:
    """The picture in sRGB; twice, if what shows through it makes a difference."""
    if reduced.mode != "RGBA":
        return {Background.NONE: colours.to_srgb(reduced)}
    opaque, alpha = colours.to_srgb(reduced.convert("RGB")), reduced.getchannel("A")
    layers = {}
    for background, colour in _BACKGROUNDS.items():
        canvas = Image.new("RGB", reduced.size, colour)
        canvas.paste(opaque, mask=alpha)
        layers[background] = canvas
    white, black = (thumbnail_of(layer) for layer in layers.values())
    if show_the_same(white, black):
        return {Background.NONE: layers[Background.WHITE]}
    return layers


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
