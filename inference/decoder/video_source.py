"""Opens videos with PyAV, which is FFmpeg."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import av
import av.logging
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from inference.decoder.failures import what_is_wrong
from inference.decoder.media import MediaLimits
from inference.decoder.video_frame import Converters, DecodedVideoFrame
from inference.errors import Reason, ScoringError

# What browsers play, and what older cameras and encoders write. FFmpeg knows hundreds more.
CODECS = frozenset({"av1", "h264", "hevc", "mjpeg", "mpeg4", "vp8", "vp9"})
_DEMUXERS = {"image/avif": "mp4", "video/mp4": "mp4", "video/webm": "webm"}
_SAME_TIME = 1e-4  # seconds: timestamps come back as they went, but for rounding
_IN_ORDER = 0.6  # of the time is for decoding in order; if that is not enough, the rest is sampled
_MOST_ASPECT = 16.0  # of a pixel
_TAIL = 1.4  # times the time, after which the end of a video counts as out of reach

av.logging.set_level(av.logging.PANIC)


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
        self._count = 0
        self._packets = 0
        self._in_order = True
        self._container: InputContainer = av.open(
            io.BytesIO(data),
            "r",
            format=_DEMUXERS[media_type],
            metadata_errors="ignore",
            options={"advanced_editlist": "0"} if media_type == "video/mp4" else {},
        )
        self._stream, self.partial = _picture_stream(self._container, media_type)
        context = self._stream.codec_context
        context.thread_count = 1
        context.options = {"max_pixels": str(limits.max_pixels)}
        self._check_size(context.width, context.height)
        self._convert = Converters(_pixel_aspect(self._stream))
        self.width = round(context.width * self._convert.pixel_aspect)
        self.height = context.height
        self._rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        time_base, start = self._stream.time_base, self._stream.start_time
        self._start = float(start * time_base) if start and time_base else 0.0
        self.duration = self._declared_duration()
        self._check_length(self.duration)
        self._check_frames(self._stream.frames)
        self.total_frames = max(1, self._stream.frames or round(self.duration * self._rate))

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
            self.total_frames = self._count  # what the header said was an estimate

    def frames_at(self, wanted: Iterable[tuple[int, float]]) -> Iterator[DecodedVideoFrame]:
        """See decode.Source."""
        for index, seconds in sorted(set(wanted), key=lambda place: place[1]):
            self._seek(seconds)
            for frame in self._decoded():
                if frame.time >= seconds - _SAME_TIME:
                    yield replace(frame, index=index)
                    break

    def _sampled(
        self, reached: float, until: float, tail_until: float
    ) -> Iterator[DecodedVideoFrame]:
        """The end, then stretches up to places drawn at random, until the time is up."""
        end = self._declared_duration()
        if end <= reached:
            yield from self._further(tail_until)
            return
        targets = iter(lambda: self._rng.uniform(reached, end), None)
        self._seek(max(reached, end - 1 / self._rate))
        for frame in self._decoded():
            yield frame
            if time.monotonic() > tail_until and frame.time < end - 2 / self._rate:
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

    def _further(self, until: float) -> Iterator[DecodedVideoFrame]:
        """What comes next of a video that does not say how long it is."""
        for frame in self._decoded():
            yield frame
            if time.monotonic() > until:
                self.partial = "its end takes too long to reach"
                return

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
                if not self._in_order and frame.pts in self._seen:
                    continue
                if frame.pts is not None:
                    self._seen.add(frame.pts)
                count = self._count
                self._count += 1
                self._check_frames(self._count)
                shown_at = count / self._rate if frame.time is None else frame.time - self._start
                seconds = max(0.0, shown_at)
                self._check_length(seconds)
                self.duration = max(self.duration, seconds)
                index = count if self._in_order else round(seconds * self._rate)
                yield DecodedVideoFrame(index, seconds, frame, self._convert)

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        try:
            for packet in self._container.demux(self._stream):
                self._packets += packet.size > 0
                yield packet
        except MemoryError:
            raise
        except (FFmpegError, ValueError, IndexError) as error:
            if not self._count:
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


def _pixel_aspect(stream: VideoStream) -> float:
    """How much wider than high players show a pixel; what is beyond reason is passed over."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT else 1.0


def _picture_stream(container: InputContainer, media_type: str) -> tuple[VideoStream, str]:
    """The stream that players show, and what of the file won't be seen.

    Of an AVIF sequence, not the still picture before it. Players choose among several streams by
    the codecs that they have, so of such a file a part is not looked at, whichever it is.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise ScoringError(Reason.UNDECODABLE, "there are no pictures in it")
    stream = max(streams, key=lambda s: s.frames) if media_type == "image/avif" else streams[0]
    if stream.codec_context is None:
        raise ScoringError(Reason.UNSUPPORTED_TYPE, "its codec is not known")
    codec = stream.codec_context.codec.canonical_name
    if codec not in CODECS:
        raise ScoringError(Reason.UNSUPPORTED_TYPE, f"videos in {codec} are not scanned")
    if stream.metadata.get("alpha_mode") == "1":
        return stream, "its transparency is not decoded"
    if len(streams) > 1 and media_type != "image/avif":
        return stream, "of several video streams one is decoded"
    return stream, ""
