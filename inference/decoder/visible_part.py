"""What there is to see of a picture whose file is broken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from PIL import Image, ImageChops, ImageFile


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Lets Pillow return what it has of a broken file; nothing else runs in this process."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def is_flat(image: Image.Image) -> bool:
    """Whether it is of one colour."""
    return len(image.getcolors(1) or ()) == 1


def visible_rows(image: Image.Image) -> int:
    """How many rows there are before those that the decoder left blank."""
    bottom = image.crop((0, image.height - 1, image.width, image.height))
    if not is_flat(bottom):
        return image.height
    blank = Image.new(image.mode, image.size, bottom.getpixel((0, 0)))
    box = ImageChops.difference(image, blank).getbbox(alpha_only=False)
    return box[3] if box else image.height
