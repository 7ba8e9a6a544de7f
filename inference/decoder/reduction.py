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
from inference.decoder.thumbnails import Thumbnail, fine_size, thumbnail_of

# How much larger than the view a scaled JPEG decode stays: the model can't tell the difference.
SCALED_DECODE_MARGIN = 2

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
# Of 255, in any of 32×32 cells: wide-gamut photos stay far below.
_ANOTHER_PICTURE = 48


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
) -> list[tuple[Background, bytes]]:
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
        (background, _on_canvas(layer, offset, wanted).tobytes())
        for background, layer in _layers(reduced, picture.colours)
    ]


def _layers(reduced: Image.Image, colours: ColourSpace) -> list[tuple[Background, Image.Image]]:
    """What may be seen of it, in sRGB: more than one, where that depends on who shows it."""
    if reduced.mode != "RGBA":
        return [(Background.NONE, image) for image in _interpretations(reduced, colours)]
    alpha = reduced.getchannel("A")
    layers = []
    for opaque in _interpretations(reduced.convert("RGB"), colours):
        white, black = (_laid_on(colour, opaque, alpha) for colour in ("white", "black"))
        same = _thumbnail(white).shows_the_same(_thumbnail(black))
        layers += (
            [(Background.NONE, white)]
            if same
            else [(Background.WHITE, white), (Background.BLACK, black)]
        )
    return layers


def _interpretations(reduced: Image.Image, colours: ColourSpace) -> list[Image.Image]:
    """In sRGB as the file says, and as if it said nothing, where that is quite another picture.

    Programs don't agree on which profiles and gammas make sense.
    """
    meant = colours.to_srgb(reduced)
    if not colours.is_named or reduced.mode == "CMYK":
        return [meant]
    plain = reduced.convert("RGB")
    difference = int(np.abs(_cells(meant) - _cells(plain)).max())
    return [meant, plain] if difference > _ANOTHER_PICTURE else [meant]


def _laid_on(colour: str, opaque: Image.Image, alpha: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", opaque.size, colour)
    canvas.paste(opaque, mask=alpha)
    return canvas


def _cells(view: Image.Image) -> npt.NDArray[np.int16]:
    """The means of 32×32 cells."""
    cells = view.resize((32, 32), Image.Resampling.BOX, reducing_gap=1.0)
    return np.asarray(cells, np.int16)


def _thumbnail(view: Image.Image) -> Thumbnail:
    return thumbnail_of(view, fine_size(*view.size, view.size))


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
