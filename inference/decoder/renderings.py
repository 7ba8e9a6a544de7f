"""The ways in which a picture is shown: on white or on black, by its colour space or without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.decoder.colour import ColourSpace
from inference.decoder.media import Background
from inference.decoder.thumbnails import Thumbnail, fine_size, thumbnail_of

# Of 255, in any of 32×32 cells: wide-gamut photos stay far below.
_ANOTHER_PICTURE = 48


@dataclass(frozen=True)
class Rendering:
    """One way to show a picture. `plain`: as if the file named no colour space."""

    background: Background
    plain: bool


def renderings(image: Image.Image, colours: ColourSpace) -> list[tuple[Rendering, Image.Image]]:
    """What may be seen of it, in sRGB: more than one, where that depends on who shows it."""
    if image.mode != "RGBA":
        return [
            (Rendering(Background.NONE, plain), shown)
            for plain, shown in _interpretations(image, colours)
        ]
    alpha = image.getchannel("A")
    layers = []
    for plain, opaque in _interpretations(image.convert("RGB"), colours):
        white, black = (_laid_on(colour, opaque, alpha) for colour in ("white", "black"))
        same = _thumbnail(white).shows_the_same(_thumbnail(black))
        layers += (
            [(Rendering(Background.NONE, plain), white)]
            if same
            else [
                (Rendering(Background.WHITE, plain), white),
                (Rendering(Background.BLACK, plain), black),
            ]
        )
    return layers


def rendered(image: Image.Image, colours: ColourSpace, way: Rendering) -> Image.Image:
    """A picture in a ColourMode as RGB, shown in this way; what makes no difference is white."""
    opaque = image.convert("RGB") if image.mode == "RGBA" else image
    shown = opaque.convert("RGB") if way.plain else colours.to_srgb(opaque)
    if image.mode != "RGBA":
        return shown
    colour = "black" if way.background is Background.BLACK else "white"
    return _laid_on(colour, shown, image.getchannel("A"))


def _interpretations(image: Image.Image, colours: ColourSpace) -> list[tuple[bool, Image.Image]]:
    """In sRGB as the file says, and (True) as if it said nothing, if that is quite another picture.

    Programs don't agree on which profiles and gammas make sense.
    """
    meant = colours.to_srgb(image)
    if not colours.is_named or image.mode == "CMYK":
        return [(False, meant)]
    plain = image.convert("RGB")
    difference = int(np.abs(_cells(meant) - _cells(plain)).max())
    return [(False, meant), (True, plain)] if difference > _ANOTHER_PICTURE else [(False, meant)]


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
