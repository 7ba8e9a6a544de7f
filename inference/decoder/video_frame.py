"""A frame that FFmpeg decoded, of which pictures are made only when they are wanted."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from inference.decoder.colour import ColourSpace
from inference.decoder.reduction import Picture
from inference.decoder.thumbnails import Thumbnail, fine_size

_SIDEWAYS = frozenset(
    {Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270}
    | {Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE}
)
_MATRIX = struct.Struct("9i")


@dataclass(frozen=True)
class Converters:
    """What scales and converts the frames of a video, of which a pixel has this width per height.

    A scaler that a frame makes for itself leaves threads behind.
    """

    pixel_aspect: float = 1.0
    small: VideoReformatter = field(default_factory=VideoReformatter)
    whole: VideoReformatter = field(default_factory=VideoReformatter)


@dataclass(frozen=True)
class DecodedVideoFrame:
    """A frame that FFmpeg decoded: see reduction.Frame."""

    index: int
    time: float
    frame: VideoFrame
    convert: Converters

    def thumbnail(self, input_size: tuple[int, int]) -> Thumbnail:
        """See reduction.Frame."""
        small = self.convert.small.reformat(
            self.frame,
            *fine_size(self.frame.width, self.frame.height, input_size),
            "rgb24",
            interpolation=Interpolation.AREA,
            threads=1,
        )
        return Thumbnail.of(Image.fromarray(small.to_ndarray()))

    def picture(self) -> Picture:
        """See reduction.Frame."""
        rgb = self.convert.whole.reformat(self.frame, format="rgb24", threads=1)
        image: Image.Image = rgb.to_image()  # type: ignore[no-untyped-call]
        width, height = max(1, round(image.width * self.convert.pixel_aspect)), image.height
        for turn in _turns(self.frame):
            image = image.transpose(turn)
            if turn in _SIDEWAYS:
                width, height = height, width
        return Picture(image, ColourSpace(), width, height)


def _turns(frame: VideoFrame) -> list[Image.Transpose]:
    """How players turn and mirror a frame: what ffplay makes of its display matrix."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return []
    matrix = _MATRIX.unpack(bytes(data))  # type: ignore[call-overload]
    flip = Image.Transpose
    match -frame.rotation % 360:
        case 90:
            return [flip.TRANSPOSE if matrix[3] > 0 else flip.ROTATE_270]
        case 270:
            return [flip.TRANSVERSE if matrix[3] < 0 else flip.ROTATE_90]
        case 180:
            across = [flip.FLIP_LEFT_RIGHT] if matrix[0] < 0 else []
            return across + ([flip.FLIP_TOP_BOTTOM] if matrix[4] < 0 else [])
        case _:
            return [flip.FLIP_TOP_BOTTOM] if matrix[4] < 0 else []
