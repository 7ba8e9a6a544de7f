"""Which way up a picture is meant to be."""

from __future__ import annotations

from PIL import ExifTags, Image

TURNS = {  # by the value of the EXIF tag
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})


def orientation_of(image: Image.Image) -> int:
    """What its EXIF asks for, as in browsers; other metadata, broken or not, is not read."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # libjxl has turned it; what EXIF says is for others
    try:
        exif = Image.Exif()
        exif.load(image.info.get("exif") or b"")
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # as many kinds as there are ways to break it; browsers show such files
        return 1
    return orientation if isinstance(orientation, int) else 1
