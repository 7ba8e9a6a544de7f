"""From the bytes of one file to its views."""

from __future__ import annotations

import itertools
import math
import random
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Protocol

from PIL import Image

from inference.decoder.containers import is_cut_off, whole_frames
from inference.decoder.failures import what_is_wrong
from inference.decoder.frame_chooser import AllFrames, FrameChooser
from inference.decoder.media import (
    DecodedMedia,
    Facts,
    MediaLimits,
    Preprocessing,
    Region,
    Request,
    View,
)
from inference.decoder.media_types import check_type
from inference.decoder.pillow_source import PillowSource
from inference.decoder.reduction import SCALED_DECODE_MARGIN, Frame, Picture, view_pixels
from inference.decoder.video_source import VideoSource
from inference.decoder.views import regions_of, tiles_of
from inference.errors import Reason, ScoringError

CUT_OFF = "the file ends too early"

# Of all frames that are chosen: a strip of 16 regions is seen in 8 frames at most. Whoever sends
# strips can't keep a device busy until the deadline lets them in.
_MOST_REGIONS = 128

_Views = list[tuple[View, bytes]]


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
            frames, views = len(request.closer), self._closer_views(source, request)
        else:
            frames, views = self._chosen_views(source, request)
        facts = Facts(
            media_type=media_type,
            width=source.width,
            height=source.height,
            frames=frames,
            total_frames=max(frames, source.total_frames),
            duration=source.duration,
            partial=source.partial or (CUT_OFF if cut_off else ""),
        )
        return DecodedMedia(facts, tuple(view for view, _ in views), tuple(p for _, p in views))

    def _open(self, data: bytes, media_type: str, request: Request, cut_off: bool) -> Source:
        # libavif refuses a file that is cut off; FFmpeg decodes what there is of it.
        if media_type.startswith("video/") or (media_type == "image/avif" and cut_off):
            return VideoSource(data, media_type, self._limits, self._rng)

        def scale(width: int, height: int) -> float:
            across, down = self._input_size
            return SCALED_DECODE_MARGIN * max(
                max(across / region.width, down / region.height)
                for region in self._regions(width, height, request)
            )

        if media_type == "image/webp" and cut_off:
            data = whole_frames(data) or data
        return PillowSource(data, media_type, self._limits, scale)

    def _chosen_views(self, source: Source, request: Request) -> tuple[int, _Views]:
        """How many frames were compared, and the views of those that were chosen, in order."""
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
            return 1, self._views_of_frame(first, request)
        chooser = AllFrames() if all_frames else FrameChooser(max_frames, self._rng)
        kept: dict[int, _Views] = {}
        count, last, last_number = 0, first, 0
        for count, frame in enumerate(itertools.chain((first, second), frames), start=1):
            choice = chooser.offer(count, frame.thumbnail(self._input_size))
            for number in choice.drop:
                del kept[number]
            if choice.keep:
                kept[count] = self._views_of_frame(frame, request)
            if frame.time >= last.time:  # sampled frames come out of order
                last, last_number = frame, count
        chosen = chooser.chosen(last_number, last.thumbnail(self._input_size))
        if last_number in chosen and last_number not in kept:
            kept[last_number] = self._views_of_frame(last, request)
        views = [view for number in chosen for view in kept[number]]
        return count, sorted(views, key=lambda view: view[0].frame_time)

    def _closer_views(self, source: Source, request: Request) -> _Views:
        """The tiles of the views that were asked for."""
        wanted: dict[int, dict[Region, None]] = {}
        for view in request.closer:
            wanted.setdefault(view.frame_index, {})[view.region] = None
        places = [(view.frame_index, view.frame_time) for view in request.closer]
        return [
            made
            for frame in source.frames_at(places)
            for picture in (frame.picture(),)
            for region in wanted[frame.index]
            for tile in tiles_of(region, request.tiles, self._input_size)
            for made in self._views(frame, picture, tile)
        ]

    def _views_of_frame(self, frame: Frame, request: Request) -> _Views:
        picture = frame.picture()
        return [
            made
            for region in self._regions(picture.width, picture.height, request)
            for made in self._views(frame, picture, region)
        ]

    def _views(self, frame: Frame, picture: Picture, region: Region) -> _Views:
        return [
            (View(frame.index, frame.time, region, background), pixels)
            for background, pixels in view_pixels(picture, region, self._preprocessing)
        ]

    def _regions(self, width: int, height: int, request: Request) -> list[Region]:
        """The regions of a frame, each followed by its tiles."""
        return [
            region
            for whole in regions_of(width, height, self._input_size)
            for region in (whole, *tiles_of(whole, request.tiles, self._input_size))
        ]
