"""Decodes a media file into views: RGB pictures of the size that the model takes.

Runs in worker processes, so it imports neither torch nor gRPC's machinery at run time.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from inference.errors import Reason, ScoringError
from inference.media_types import check_type

ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = None  # our own limit is a setting, and is checked before decoding
_FORMATS = {
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
}
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_PNG_BIT_DEPTH = 24  # the byte's place: signature, length and type of IHDR, width, height
_TURNS = {  # by the value of the EXIF tag
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WIDEST_RESIZED_WHOLE = 4  # times the target's side


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its pictures: open_clip's `preprocess_cfg`, without the normalisation."""

    width: int
    height: int
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    fill_colour: int  # of the borders that "longest" adds


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels of the upright frame."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class DecodedView:
    """One view; `pixels` are height × width × 3 bytes, RGB."""

    frame_index: int
    frame_time: float  # seconds
    region: Region
    pixels: bytes


@dataclass(frozen=True)
class DecodedMedia:
    """The views of one file; width and height in pixels, upright."""

    views: tuple[DecodedView, ...]
    media_type: str
    width: int
    height: int


def decode(
    data: bytes, declared_type: str, preprocessing: Preprocessing, max_pixels: int
) -> DecodedMedia:
    """Decodes a file; of an animation, its first frame.

    Raises ScoringError: EMPTY_IMAGE, UNSUPPORTED_TYPE, TYPE_MISMATCH, TRUNCATED, UNDECODABLE or
    TOO_MANY_PIXELS.
    """
    media_type = check_type(data, declared_type)
    try:
        frame = _first_frame(data, media_type, max_pixels)
    except ScoringError:
        raise
    except MemoryError as error:
        raise ScoringError(Reason.TOO_MANY_PIXELS, "the image takes too much memory") from error
    except Exception as error:
        # Decoders of hostile files raise nearly anything: OSError, ValueError, SyntaxError,
        # EOFError, RuntimeError, struct.error, IndexError and zlib.error were all seen.
        raise _undecodable(error) from error
    region, pixels = _view_of_whole(frame, preprocessing)
    view = DecodedView(0, 0.0, region, pixels)
    return DecodedMedia((view,), media_type, frame.width, frame.height)


def _first_frame(data: bytes, media_type: str, max_pixels: int) -> Image.Image:
    """The first frame, upright, as RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=(_FORMATS[media_type],)) as image:
            if image.width * image.height > max_pixels:
                message = f"{image.width}×{image.height} is over {max_pixels} pixels"
                raise ScoringError(Reason.TOO_MANY_PIXELS, message)
            image.load()
            if media_type == "image/png" and data[_PNG_BIT_DEPTH] == 16:
                # Pillow compares a transparent colour of 16 bits with samples that it cut to 8,
                # so a file could name one that makes other colours vanish.
                image.info.pop("transparency", None)
            return _as_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF or XMP orientation asks; other metadata, broken or not, is not read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as many kinds as there are ways to break it; browsers show such files
        orientation = 1
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode; what is transparent shows white, as on most pages."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow clips 16-bit greys to 255 when it converts them.
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")


def _undecodable(error: Exception) -> ScoringError:
    text = str(error)
    if isinstance(error, UnidentifiedImageError):
        return ScoringError(Reason.UNDECODABLE, "the file's header is broken")
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return ScoringError(Reason.TRUNCATED, "the file ends too early")
    return ScoringError(Reason.UNDECODABLE, f"the file is broken: {text or type(error).__name__}")


def _view_of_whole(image: Image.Image, wanted: Preprocessing) -> tuple[Region, bytes]:
    """The view that open_clip's own preprocessing makes, and the region that it shows."""
    size = (wanted.width, wanted.height)
    resampling = _RESAMPLING[wanted.interpolation]
    whole = Region(0, 0, image.width, image.height)
    if wanted.resize_mode == "squash":
        return whole, image.resize(size, resampling).tobytes()
    if wanted.resize_mode == "longest":
        return whole, _resize_longest(image, wanted, resampling).tobytes()
    return _resize_shortest(image, size, resampling)


def _resize_shortest(
    image: Image.Image, target: tuple[int, int], resampling: Image.Resampling
) -> tuple[Region, bytes]:
    """The middle of the picture, its shorter side fitted: torchvision's Resize and CenterCrop."""
    source = image.size
    if target[0] == target[1]:
        resized = tuple(int(target[0] * side / min(source)) for side in source)
    else:
        ratio = min(source[0] / target[0], source[1] / target[1])
        resized = tuple(round(side / ratio) for side in source)
    left, top = (round((r - t) / 2) for r, t in zip(resized, target, strict=True))
    across, down = (s / r for s, r in zip(source, resized, strict=True))
    box = (left * across, top * down, (left + target[0]) * across, (top + target[1]) * down)
    region = Region(
        int(box[0]), int(box[1]), max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    )
    if max(r / t for r, t in zip(resized, target, strict=True)) <= _WIDEST_RESIZED_WHOLE:
        picture = image.resize((resized[0], resized[1]), resampling)
        picture = picture.crop((left, top, left + target[0], top + target[1]))
    else:
        # Cut out before resizing, at the same sampling points but for rounding: a strip of
        # 10000×1 pixels would be blown up to hundreds of megabytes.
        picture = image.resize(target, resampling, box=box)
    return region, picture.tobytes()


def _resize_longest(
    image: Image.Image, wanted: Preprocessing, resampling: Image.Resampling
) -> Image.Image:
    """The whole picture, its longer side fitted, the rest filled."""
    ratio = max(image.width / wanted.width, image.height / wanted.height)
    size = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
    canvas = Image.new("RGB", (wanted.width, wanted.height), (wanted.fill_colour,) * 3)
    offset = ((wanted.width - size[0]) // 2, (wanted.height - size[1]) // 2)
    canvas.paste(image.resize(size, resampling), offset)
    return canvas
