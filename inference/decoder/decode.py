"""From the bytes of one file to its views."""

from __future__ import annotations

import itertools
import math
import random
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from inference.decoder.containers import is_cut_off, whole_frames
from inference.decoder.failures import what_is_wrong
from inference.decoder.frame_chooser import AllFrames, FrameChooser
from inference.decoder.media import (
    DecodedMedia,
    Facts,
    MediaLimits,
    PerceptualHash,
    Preprocessing,
    Region,
    Request,
    View,
)
from inference.decoder.media_types import check_type
from inference.decoder.perceptual_hash import hash_scale, hashes_of
from inference.decoder.pillow_source import PillowSource
from inference.decoder.reduction import SCALED_DECODE_MARGIN, Frame, Picture, view_pixels
from inference.decoder.renderings import Rendering
from inference.decoder.video_source import VideoSource
from inference.decoder.views import regions_of, tiles_of
from inference.errors import Reason, ScoringError

CUT_OFF = "the file ends too early"

# Of all frames that are chosen: a strip of 16 regions is seen in 8 frames at most. Whoever sends
# strips can't keep a device busy until the deadline lets them in.
_MOST_REGIONS = 128


@dataclass
class _Seen:
    """What was made of a frame, or of several."""

    views: list[View] = field(default_factory=list)
    pixels: list[bytes] = field(default_factory=list)
    hashes: list[PerceptualHash] = field(default_factory=list)

    def add(self, other: _Seen) -> None:
        """Takes over what was made of another one."""
        self.views += other.views
        self.pixels += other.pixels
        self.hashes += other.hashes


class Source(Protocol):
    """An opened file. Width and height in pixels, upright; duration in seconds."""

    width: int
    height: int
    total_frames: int
    partial: str  # why not all could be looked at, if so; final when the frames have been read

    @property
    def duration(self) -> float:
        """Seconds; 0 for what does not move."""

    def frames(self, until: float) -> Iterator[Frame]:
        """The frames; all of them, in order, if that is done by the monotonic time `until`."""

    def frames_at(self, wanted: Iterable[tuple[int, float]]) -> Iterator[Frame]:
        """The frames that had these indexes and times."""


class Decoder:
    """Decodes files for one model."""

    def __init__(
        self, preprocessing: Preprocessing, limits: MediaLimits, rng: random.Random
    ) -> None:
        """`rng` must not be foreseen by those who send files: it draws the frames to look at."""
        self._preprocessing = preprocessing
        self._input_size = (preprocessing.width, preprocessing.height)
        self._limits = limits
        self._rng = rng

    def decode(self, data: bytes, request: Request) -> DecodedMedia:
        """Decodes a file.

        Raises ScoringError: EMPTY_IMAGE, UNSUPPORTED_TYPE, TYPE_MISMATCH, TRUNCATED, UNDECODABLE,
        TOO_MANY_PIXELS, TOO_MANY_FRAMES, TOO_LONG or DECODER_OUT_OF_MEMORY.
        """
        media_type = check_type(data, request.declared_type)
        cut_off = is_cut_off(data, media_type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = self._limits.max_pixels
            try:
                return self._decode(data, media_type, request, cut_off)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # see failures.py
                wrong = what_is_wrong(error)
                if wrong.reason is Reason.UNDECODABLE and cut_off:
                    raise ScoringError(Reason.TRUNCATED, CUT_OFF) from error
                raise wrong from error

    def _decode(
        self, data: bytes, media_type: str, request: Request, cut_off: bool
    ) -> DecodedMedia:
        source = self._open(data, media_type, request, cut_off)
        if request.closer:
            frames, seen = len(request.closer), self._seen_closer(source, request)
        else:
            frames, seen = self._chosen(source, request)
        facts = Facts(
            media_type=media_type,
            width=source.width,
            height=source.height,
            frames=frames,
            total_frames=max(frames, source.total_frames),
            duration=source.duration,
            partial=source.partial or (CUT_OFF if cut_off else ""),
        )
        return DecodedMedia(facts, tuple(seen.views), tuple(seen.pixels), tuple(seen.hashes))

    def _open(self, data: bytes, media_type: str, request: Request, cut_off: bool) -> Source:
        # libavif refuses a file that is cut off; FFmpeg decodes what there is of it.
        if media_type.startswith("video/") or (media_type == "image/avif" and cut_off):
            return VideoSource(data, media_type, self._limits, self._rng)

        def scale(width: int, height: int) -> float:
            across, down = self._input_size
            for_views = SCALED_DECODE_MARGIN * max(
                max(across / region.width, down / region.height)
                for region in self._regions(width, height, request)
            )
            return max(for_views, hash_scale(width, height)) if request.hashes else for_views

        if media_type == "image/webp" and cut_off:
            data = whole_frames(data) or data
        return PillowSource(data, media_type, self._limits, scale)

    def _chosen(self, source: Source, request: Request) -> tuple[int, _Seen]:
        """How many frames were compared, and what is seen of those that were chosen, in order."""
        all_frames = request.max_frames == 0
        regions = len(regions_of(source.width, source.height, self._input_size))
        max_frames = max(1, min(request.max_frames, _MOST_REGIONS // regions))
        until = math.inf if all_frames else time.monotonic() + request.frame_seconds
        frames = source.frames(until)
        first = next(frames, None)
        if first is None:
            raise ScoringError(Reason.UNDECODABLE, "no frame of it can be decoded")
        second = next(frames, None)
        if second is None:
            return 1, self._seen_of_frame(first, request)
        chooser = AllFrames() if all_frames else FrameChooser(max_frames, self._rng)
        kept: dict[int, _Seen] = {}
        count, last, last_number = 0, first, 0
        for count, frame in enumerate(itertools.chain((first, second), frames), start=1):
            choice = chooser.offer(count, frame.thumbnail(self._input_size))
            for number in choice.drop:
                del kept[number]
            if choice.keep:
                kept[count] = self._seen_of_frame(frame, request)
            if frame.time >= last.time:  # sampled frames come out of order
                last, last_number = frame, count
        chosen = chooser.chosen(last_number, last.thumbnail(self._input_size))
        if last_number in chosen and last_number not in kept:
            kept[last_number] = self._seen_of_frame(last, request)
        seen = _Seen()
        for frame_seen in sorted(
            (kept[number] for number in chosen), key=lambda one: one.views[0].frame_time
        ):
            seen.add(frame_seen)
        return count, seen

    def _seen_closer(self, source: Source, request: Request) -> _Seen:
        """The tiles of the views that were asked for."""
        wanted: dict[int, dict[Region, None]] = {}
        for view in request.closer:
            wanted.setdefault(view.frame_index, {})[view.region] = None
        places = [(view.frame_index, view.frame_time) for view in request.closer]
        seen = _Seen()
        for frame in source.frames_at(places):
            tiles = [
                tile
                for region in wanted[frame.index]
                for tile in tiles_of(region, request.tiles, self._input_size)
            ]
            self._look(frame, frame.picture(), tiles, seen)
        return seen

    def _seen_of_frame(self, frame: Frame, request: Request) -> _Seen:
        picture, seen = frame.picture(), _Seen()
        regions = self._regions(picture.width, picture.height, request)
        ways = self._look(frame, picture, regions, seen)
        if request.hashes:
            seen.hashes += hashes_of(frame.index, picture, ways)
        return seen

    def _look(
        self, frame: Frame, picture: Picture, regions: Iterable[Region], seen: _Seen
    ) -> set[Rendering]:
        """Adds the views of some regions to `seen`; the ways in which they are shown."""
        ways = set()
        for region in regions:
            for way, pixels in view_pixels(picture, region, self._preprocessing):
                seen.views.append(View(frame.index, frame.time, region, way.background))
                seen.pixels.append(pixels)
                ways.add(way)
        return ways

    def _regions(self, width: int, height: int, request: Request) -> list[Region]:
        """The regions of a frame, each followed by its tiles."""
        return [
            region
            for whole in regions_of(width, height, self._input_size)
            for region in (whole, *tiles_of(whole, request.tiles, self._input_size))
        ]
