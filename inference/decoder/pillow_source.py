"""Opens pictures and animations with Pillow: everything but videos."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pillow_jxl  # noqa: F401 - registers itself with Pillow
from PIL import AvifImagePlugin, Image
from pillow_jxl import JpegXLImagePlugin

from inference.decoder.colour import ColourSpace, simplified
from inference.decoder.containers import apng_frames, has_box
from inference.decoder.failures import what_is_wrong
from inference.decoder.jxl_header import read_jxl_header
from inference.decoder.media import MediaLimits
from inference.decoder.orientation import SIDEWAYS, TURNS, orientation_of
from inference.decoder.reduction import Picture
from inference.decoder.thumbnails import Thumbnail, fine_size, thumbnail_of
from inference.decoder.visible_part import is_flat, lenient, visible_rows
from inference.errors import Reason, ScoringError

FORMATS = {
    "image/apng": "PNG",
    "image/avif": "AVIF",
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/jxl": "JXL",
    "image/png": "PNG",
    "image/webp": "WEBP",
}
_PNGS = frozenset({"image/apng", "image/png"})
_ANIMATED = frozenset({"image/apng", "image/avif", "image/gif", "image/webp"})
_PNG_BIT_DEPTH = 24  # the byte's place: signature, length and type of IHDR, width, height
_OVER_LIMITS = (ScoringError, Image.DecompressionBombError, Image.DecompressionBombWarning)

# One file, one thread: the processes are what runs in parallel.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
JpegXLImagePlugin.DECODE_THREADS = 0


@dataclass(frozen=True)
class PillowFrame:
    """A frame that Pillow decoded: see reduction.Frame."""

    index: int
    time: float
    image: Image.Image  # upright, in a ColourMode
    colours: ColourSpace
    size: tuple[int, int]  # of the frame, of which `image` may be a smaller copy

    def thumbnail(self, input_size: tuple[int, int]) -> Thumbnail:
        """See reduction.Frame."""
        return thumbnail_of(self.image, fine_size(*self.size, input_size))

    def picture(self) -> Picture:
        """See reduction.Frame."""
        return Picture(self.image, self.colours, *self.size)


class PillowSource:
    """The frames of a picture or an animation: see decode.Source."""

    def __init__(
        self, data: bytes, media_type: str, limits: MediaLimits, scale: Callable[[int, int], float]
    ) -> None:
        """Reads the header. `scale` says how much of a frame's size its views need.

        Raises ScoringError with TOO_MANY_PIXELS or TOO_MANY_FRAMES, and what Pillow raises.
        """
        self._data = data
        self._media_type = media_type
        self._limits = limits
        self._scale = scale
        self._shown_for = 0.0  # seconds, all frames so far
        self.partial = _check_jxl(data, limits) if media_type == "image/jxl" else ""
        self._image, (width, height) = self._open()
        self._turn = orientation_of(self._image)
        self.width, self.height = (height, width) if self._turn in SIDEWAYS else (width, height)
        # A GIF's frames are counted as they come: its header does not tell.
        counted = media_type in _ANIMATED and media_type != "image/gif"
        self.total_frames = int(getattr(self._image, "n_frames", 1)) if counted else 1
        self._check_frames(self.total_frames)
        if media_type == "image/apng":
            default = bool(getattr(self._image, "default_image", False))
            if apng_frames(data) + default != self.total_frames:
                self.partial = "its frames are not as many as its header says"

    @property
    def duration(self) -> float:
        """Seconds, as far as the frames were read; 0 for a still picture."""
        return self._shown_for if self.total_frames > 1 else 0.0

    def frames(self, until: float) -> Iterator[PillowFrame]:
        """See decode.Source."""
        yield self._first()
        if self._media_type not in _ANIMATED:
            return
        yield from self._primary_item()
        index = 1
        while self._media_type == "image/gif" or index < self.total_frames:
            if time.monotonic() > until:
                self.partial = "its frames take too long to decode"
                break
            try:
                frame = self._next(index)
            except EOFError:
                if self._media_type != "image/gif":
                    self.partial = "the file ends too early"
                break
            except _OVER_LIMITS:
                raise
            except Exception as error:  # see failures.py
                self.partial = what_is_wrong(error).message
                break
            index += 1
            self._check_frames(index)
            yield frame
        self.total_frames = max(index, self.total_frames)

    def _primary_item(self) -> Iterator[PillowFrame]:
        """Of an AVIF sequence, the still picture that programs show which know no sequences."""
        if self._data[8:12] != b"avis" or not has_box(self._data, b"meta"):
            return
        as_still = io.BytesIO(self._data[:8] + b"avif" + self._data[12:])
        try:
            image: Image.Image = Image.open(as_still, formats=("AVIF",))
            image.load()
        except Exception as error:  # see failures.py
            self.partial = what_is_wrong(error).message
            return
        turn = TURNS.get(orientation_of(image))
        upright = simplified(image) if turn is None else simplified(image).transpose(turn)
        yield PillowFrame(0, 0.0, upright, ColourSpace.of(image), upright.size)

    def frames_at(self, wanted: Iterable[tuple[int, float]]) -> Iterator[PillowFrame]:
        """See decode.Source."""
        for index in sorted({index for index, _ in wanted}):
            yield self._next(index) if index else self._first()

    def _open(self) -> tuple[Image.Image, tuple[int, int]]:
        """The file, its header read, and its size; of a large JPEG only a part will be decoded."""
        image = Image.open(io.BytesIO(self._data), formats=(FORMATS[self._media_type],))
        size = image.size
        scale = self._scale(*size) if self._media_type == "image/jpeg" else 1.0
        if scale < 1:
            image.draft(None, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        return image, size

    def _first(self) -> PillowFrame:
        """The first frame, or what can be seen of it."""
        try:
            self._image.load()
            return self._frame(0, self._image)
        except _OVER_LIMITS:
            raise
        except Exception as error:  # see failures.py
            visible = self._visible_part()
            if visible is None:
                raise
            self.partial = what_is_wrong(error).message
            return visible

    def _visible_part(self) -> PillowFrame | None:
        """The first frame of a broken file, down to where there is something to see; or None."""
        with contextlib.suppress(Exception), lenient():
            image, _ = self._open()
            image.load()
            frame = self._frame(0, image)
            if is_flat(frame.image):
                return None
            end = visible_rows(frame.image) if self._turn == 1 else frame.image.height
            height = round(self.height * end / frame.image.height)
            part = frame.image.crop((0, 0, frame.image.width, end))
            return PillowFrame(0, 0.0, part, frame.colours, (self.width, height))
        return None

    def _next(self, index: int) -> PillowFrame:
        self._image.seek(index)
        self._image.load()
        return self._frame(index, self._image)

    def _frame(self, index: int, image: Image.Image) -> PillowFrame:
        if self._media_type in _PNGS and self._data[_PNG_BIT_DEPTH] == 16:
            # Pillow compares a transparent colour of 16 bits with samples that it cut to 8,
            # so a file could name one that makes other colours vanish.
            image.info.pop("transparency", None)
        turn = TURNS.get(self._turn)
        upright = simplified(image) if turn is None else simplified(image).transpose(turn)
        if upright is image and self._media_type in _ANIMATED:
            upright = image.copy()  # the next seek will change it
        size = (self.width, self.height) if index == 0 else upright.size
        shown_at = float(image.info.get("timestamp", self._shown_for * 1000)) / 1000
        self._shown_for = shown_at + float(image.info.get("duration", 0)) / 1000
        if self._shown_for > self._limits.max_seconds:
            message = f"it is longer than {self._limits.max_seconds:g} s"
            raise ScoringError(Reason.TOO_LONG, message)
        return PillowFrame(index, shown_at, upright, ColourSpace.of(image), size)

    def _check_frames(self, count: int) -> None:
        if count > self._limits.max_frames:
            message = f"it has over {self._limits.max_frames} frames"
            raise ScoringError(Reason.TOO_MANY_FRAMES, message)


def _check_jxl(data: bytes, limits: MediaLimits) -> str:
    """Refuses a file that is too large, before Pillow decodes it; says what will not be seen of it.

    Raises ScoringError with TOO_MANY_PIXELS, and ValueError.
    """
    header = read_jxl_header(data)
    if header.width * header.height > limits.max_pixels:
        message = f"{header.width}×{header.height} is over {limits.max_pixels} pixels"
        raise ScoringError(Reason.TOO_MANY_PIXELS, message)
    return "of an animated JPEG XL one frame is decoded" if header.animated else ""
