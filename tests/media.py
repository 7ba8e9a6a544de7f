"""Makes files of every media type out of drawn pictures."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pillow_jxl  # noqa: F401 - registers itself with Pillow
from av.video.stream import VideoStream
from PIL import Image

from inference.demo.drawing import random_scene, render

STILL = {
    "image/avif": "AVIF",
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/jxl": "JXL",
    "image/png": "PNG",
    "image/webp": "WEBP",
}
MOVING = ("image/apng", "image/avif", "image/gif", "image/webp", "video/mp4", "video/webm")
ALL = ("image/apng", *STILL, "video/mp4", "video/webm")
_CODECS = {"video/mp4": ("mp4", "libx264"), "video/webm": ("webm", "libvpx")}


def drawn(*wanted: tuple[str, str], seed: int = 0, size: int = 300) -> Image.Image:
    """A picture with these (colour, shape) pairs."""
    return render(random_scene(np.random.default_rng(seed), wanted or None), size, size)


def still(image: Image.Image, media_type: str = "image/png", **options: object) -> bytes:
    """The picture as a file."""
    data = io.BytesIO()
    image.save(data, STILL[media_type], **options)
    return data.getvalue()


def moving(
    frames: Sequence[Image.Image], media_type: str, fps: int = 10, *, header_first: bool = False
) -> bytes:
    """The pictures as an animation or a video; an MP4 has its index at its end, or first."""
    if media_type.startswith("video/"):
        return _video(frames, media_type, fps, {"movflags": "faststart"} if header_first else {})
    kind = "PNG" if media_type == "image/apng" else STILL[media_type]
    data = io.BytesIO()
    first, *rest = frames
    first.save(data, kind, save_all=True, append_images=rest, duration=1000 // fps, loop=0)
    return data.getvalue()


def file_of(image: Image.Image, media_type: str) -> bytes:
    """The picture as a file of any of the nine types; what has to move shows it twice."""
    if media_type in STILL:
        return still(image, media_type)
    # A pixel makes the second frame another one, which Pillow would leave out otherwise.
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    return moving([image, other], media_type)


def _video(
    frames: Sequence[Image.Image], media_type: str, fps: int, options: dict[str, str]
) -> bytes:
    container_format, codec = _CODECS[media_type]
    with (
        tempfile.NamedTemporaryFile() as file,  # FFmpeg opens it a second time
        av.open(file.name, "w", format=container_format, options=options) as container,
    ):
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            picture: av.VideoFrame = av.VideoFrame.from_image(frame)  # type: ignore[no-untyped-call]
            picture.pts, picture.time_base = number, Fraction(1, fps)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
        container.close()
        return file.read()
