"""Drawings that no server and no gateway has seen before."""

from __future__ import annotations

import itertools

from PIL import Image

from tests.media import drawn, still

_numbers = itertools.count()


def new_picture(colour: str, shape: str, size: int = 300) -> Image.Image:
    """A drawing with a corner of its own, since pict-rs takes out all that is not picture."""
    image = drawn((colour, shape), size=size)
    number = next(_numbers)
    corner = (number // 7 % 40, number * 37 % 256, number * 101 % 256)
    image.paste(corner, (0, 0, size // 20, size // 20))
    return image


def bad() -> bytes:
    """A file that the demo policy rejects."""
    return still(new_picture("red", "triangle"))


def good() -> bytes:
    """A file that it accepts."""
    return still(new_picture("blue", "circle"))
