"""Opens videos with PyAV, which is FFmpeg."""

from __future__ import annotations

import io
import random
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from PIL import Image

from inference.decoder.colour import ColourSpace
from inference.decoder.failures import what_is_wrong
from inference.decoder.media import MediaLimits
from inference.decoder.reduction import THUMBNAIL_SIDE, Picture, Thumbnail
from inference.errors import Reason, ScoringError

# What browsers play, and what older cameras and encoders write. FFmpeg knows hundreds more.
CODECS = frozenset({"av1", "h264", "hevc", "mjpeg", "mpeg4", "vp8", "vp9"})
_DEMUXERS = {"image/avif": "mp4", "video/mp4": "mp4", "video/webm": "webm"}
_SAME_TIME = 1e-4  # seconds: timestamps come back as they went, but for rounding
_IN_ORDER = 0.6  # of the time is for decoding in order; if that is not enough, the rest is sampled
_TAIL = 2.0  # times the time, after which the end of a video counts as out of reach
_MATRIX = struct.Struct("9i")

av.logging.set_level(av.logging.PANIC)


@dataclass(frozen=True)
class DecodedVideoFrame:
    """A frame that FFmpeg decoded: see reduction.Frame."""

    index: int
    time: float
    frame: VideoFrame

    def thumbnail(self) -> Thumbnail:
        """See reduction.Frame."""
        small = self.frame.reformat(
            THUMBNAIL_SIDE, THUMBNAIL_SIDE, "rgb24", interpolation=Interpolation.AREA
        )
        return small.to_ndarray().astype(np.int16).reshape(-1)

    def picture(self) -> Picture:
        """See reduction.Frame."""
        image: Image.Image = self.frame.to_image()  # type: ignore[no-untyped-call]
        for turn in _turns(self.frame):
            image = image.transpose(turn)
        return Picture(image, ColourSpace(), image.width, image.height)


class VideoSource:
    """The frames of a video's first picture stream: see decode.Source."""

    def __init__(
        self, data: bytes, media_type: str, limits: MediaLimits, rng: random.Random
    ) -> None:
        """Reads the header. `rng` draws the places to look at when there is no time for all.

        Raises ScoringError with UNSUPPORTED_TYPE or what is over a limit, and what PyAV raises.
        """
        self._limits = limits
        self._rng = rng
        self._seen: set[int] = set()  # timestamps
        self._packets = 0
        self._in_order = True
        self.partial = ""
        self._container: InputContainer = av.open(
            io.BytesIO(data), "r", format=_DEMUXERS[media_type], metadata_errors="ignore"
        )
        self._stream = _picture_stream(self._container, media_type)
        context = self._stream.codec_context
        context.thread_count = 1
        context.options = {"max_pixels": str(limits.max_pixels)}
        self.width, self.height = context.width, context.height
        self._check_size(context.width, context.height)
        self._rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        time_base, start = self._stream.time_base, self._stream.start_time
        self._start = float(start * time_base) if start and time_base else 0.0
        self.duration = self._declared_duration()
        self._check_length(self.duration)
        self.total_frames = max(1, self._stream.frames or round(self.duration * self._rate))
        self._check_frames(self.total_frames)

    def frames(self, until: float) -> Iterator[DecodedVideoFrame]:
        """See decode.Source."""
        now = time.monotonic()
        reached = 0.0
        for frame in self._decoded():
            if frame.index == 0 and frame.frame.rotation % 180 == 90:
                self.width, self.height = self.height, self.width
            reached = max(reached, frame.time)
            yield frame
            if time.monotonic() > now + _IN_ORDER * (until - now):
                yield from self._sampled(reached, until, until + (_TAIL - 1) * (until - now))
                return
        if self._packets < self._stream.frames:
            self.partial = "the file ends too early"
        elif not self.partial:
            self.total_frames = len(self._seen)  # what the header said was an estimate

    def frames_at(self, wanted: Iterable[tuple[int, float]]) -> Iterator[DecodedVideoFrame]:
        """See decode.Source."""
        for index, seconds in sorted(set(wanted), key=lambda place: place[1]):
            self._seek(seconds)
            for frame in self._decoded():
                if frame.time >= seconds - _SAME_TIME:
                    yield DecodedVideoFrame(index, frame.time, frame.frame)
                    break

    def _sampled(
        self, reached: float, until: float, tail_until: float
    ) -> Iterator[DecodedVideoFrame]:
        """The end, then stretches up to places drawn at random, until the time is up."""
        targets = iter(lambda: self._rng.uniform(reached, self.duration), None)
        self._seek(max(reached, self.duration - 1 / self._rate))
        for frame in self._decoded():
            yield frame
            if time.monotonic() > tail_until and frame.time < self.duration - 2 / self._rate:
                self.partial = "its end takes too long to reach"
                return
        for target in targets:
            if time.monotonic() > until:
                return
            self._seek(target)
            for frame in self._decoded():
                yield frame
                if time.monotonic() > until:
                    return
                if frame.time >= target:
                    break

    def _decoded(self) -> Iterator[DecodedVideoFrame]:
        """Frames from where the container stands, but for those that were seen before."""
        for packet in self._demuxed():
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except (FFmpegError, ValueError, IndexError) as error:
                # Players go on after a broken packet, so what follows is looked at too.
                self.partial = what_is_wrong(error).message
                continue
            for frame in frames:
                if not isinstance(frame, VideoFrame):
                    continue
                self._check_size(frame.width, frame.height)
                if packet.is_corrupt or frame.is_corrupt:
                    self.partial = "some of its frames are broken"
                timestamp = frame.pts if frame.pts is not None else -1 - len(self._seen)
                if timestamp in self._seen:
                    continue
                count = len(self._seen)
                self._seen.add(timestamp)
                self._check_frames(count + 1)
                shown_at = count / self._rate if frame.time is None else frame.time - self._start
                seconds = max(0.0, shown_at)
                self._check_length(seconds)
                self.duration = max(self.duration, seconds)
                index = count if self._in_order else round(seconds * self._rate)
                yield DecodedVideoFrame(index, seconds, frame)

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        try:
            for packet in self._container.demux(self._stream):
                self._packets += packet.size > 0
                yield packet
        except MemoryError:
            raise
        except (FFmpegError, ValueError, IndexError) as error:
            if not self._seen:
                raise
            self.partial = what_is_wrong(error).message

    def _seek(self, seconds: float) -> None:
        """Goes to the key frame before a time."""
        self._in_order = False
        if self._stream.time_base:
            timestamp = round((self._start + seconds) / float(self._stream.time_base))
            self._container.seek(timestamp, stream=self._stream)

    def _declared_duration(self) -> float:
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / av.time_base

    def _check_length(self, seconds: float) -> None:
        if seconds > self._limits.max_seconds:
            message = f"it is longer than {self._limits.max_seconds:g} s"
            raise ScoringError(Reason.TOO_LONG, message)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            message = f"{width}×{height} is over {self._limits.max_pixels} pixels"
            raise ScoringError(Reason.TOO_MANY_PIXELS, message)

    def _check_frames(self, count: int) -> None:
        if count > self._limits.max_frames:
            message = f"it has over {self._limits.max_frames} frames"
            raise ScoringError(Reason.TOO_MANY_FRAMES, message)


def _picture_stream(container: InputContainer, media_type: str) -> VideoStream:
    """The stream that players show; of an AVIF sequence, not the still picture before it."""
    if not container.streams.video:
        raise ScoringError(Reason.UNDECODABLE, "there are no pictures in it")
    streams = container.streams.video
    stream = max(streams, key=lambda s: s.frames) if media_type == "image/avif" else streams[0]
    if stream.codec_context is None:
        raise ScoringError(Reason.UNSUPPORTED_TYPE, "its codec is not known")
    codec = stream.codec_context.codec.canonical_name
    if codec not in CODECS:
        raise ScoringError(Reason.UNSUPPORTED_TYPE, f"videos in {codec} are not scanned")
    return stream


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
