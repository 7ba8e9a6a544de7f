"""Brings every kind of picture to colours of one kind: what a browser would show."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageCms

ColourMode = Literal["L", "RGB", "RGBA", "CMYK"]
"""The modes that pictures are kept in until they have the size of a view."""

_DISPLAY_GAMMA = 1 / 2.2  # the gAMA value that sRGB stands for, PNG specification, 11.3.2.2
_GAMMA_TOLERANCE = 0.05
_MOST_BYTES = 4 * 1024 * 1024  # of a profile; those of printers have one or two megabytes
_KEPT_PROFILE_BYTES = 64 * 1024


def simplified(image: Image.Image) -> Image.Image:
    """The picture in one of four modes, eight bits a channel; RGBA only if it is not opaque.

    Colours stay as they are in the file: `to_srgb` interprets them when there are few pixels left.
    """
    mode = image.mode
    if mode == "F":  # JPEG XL in floating point, from 0 to 1
        return image.point(lambda value: value * 255).convert("L")
    if mode == "I" or mode.startswith("I;16"):
        # Pillow clips 16-bit greys to 255 when it converts them.
        return image.convert("I").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = image.getchannel("A").getextrema() == (255, 255)
        return image.convert("RGB") if opaque else image
    return image if mode in ("L", "RGB", "CMYK") else image.convert("RGB")


class ColourSpace:
    """How the colours of a file are meant: by its ICC profile, or by PNG's gamma."""

    def __init__(self, icc_profile: bytes | None = None, gamma: float | None = None) -> None:
        self._profile = icc_profile
        self._gamma = gamma

    @classmethod
    def of(cls, image: Image.Image) -> ColourSpace:
        """The colour space that a file names; one that makes no sense is passed over."""
        profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
        return cls(
            profile if isinstance(profile, bytes) and 0 < len(profile) <= _MOST_BYTES else None,
            gamma if isinstance(gamma, float) and gamma > 0 and "srgb" not in image.info else None,
        )

    @property
    def is_named(self) -> bool:
        """Whether the file names one."""
        return self._profile is not None or self._gamma is not None

    def to_srgb(self, picture: Image.Image) -> Image.Image:
        """An L, RGB or CMYK picture as RGB in sRGB."""
        if self._profile is not None:
            small = len(self._profile) <= _KEPT_PROFILE_BYTES
            transform = (_kept_transform if small else _transform)(self._profile, picture.mode)
            if transform is not None:
                return ImageCms.applyTransform(picture, transform) or picture
        elif self._gamma is not None:
            exponent = _DISPLAY_GAMMA / self._gamma
            if abs(exponent - 1) > _GAMMA_TOLERANCE and picture.mode in ("L", "RGB"):
                curve = [round(255 * (value / 255) ** exponent) for value in range(256)]
                picture = picture.point(curve * len(picture.getbands()))
        return picture.convert("RGB")


@lru_cache(maxsize=16)
def _kept_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """As _transform; photos have a few profiles between them."""
    return _transform(profile, mode)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB; None where the profile is broken or of another kind of picture."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
