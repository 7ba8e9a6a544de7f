"""The values of decoding: what is asked for, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its pictures: open_clip's `preprocess_cfg`, without the normalisation."""

    width: int
    height: int
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    fill_colour: int  # of the borders that "longest" adds

    @property
    def view_bytes(self) -> int:
        """The size of a view: height × width × 3."""
        return self.height * self.width * 3


@dataclass(frozen=True)
class MediaLimits:
    """What is refused before it costs anything: pixels of a frame, frames, seconds."""

    max_pixels: int
    max_frames: int
    max_seconds: float


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels of the upright frame."""

    left: int
    top: int
    width: int
    height: int


class Background(IntEnum):
    """What a view was laid on that is transparent in places."""

    NONE = 0  # nothing of it is transparent, or not so that one could tell
    WHITE = 1
    BLACK = 2


@dataclass(frozen=True)
class View:
    """Where a view comes from. Its pixels stand beside it, in DecodedMedia."""

    frame_index: int
    frame_time: float  # seconds
    region: Region
    background: Background


@dataclass(frozen=True)
class PerceptualHash:
    """PDQ of a whole picture that views were made of: 32 bytes, and a quality from 0 to 100."""

    frame_index: int
    background: Background
    pdq: bytes
    quality: int


@dataclass(frozen=True)
class Request:
    """What is wanted of a file.

    `max_frames` is the most frames that are chosen, 0 for all that differ; `frame_seconds` how
    long the choosing may take, and `seconds` how much processor time all of it. `tiles` adds a grid
    of 2×2 tiles to every region, or 2×2 and 3×3. With `closer`, only the tiles of these views are
    made. `hashes` asks for perceptual hashes as well.
    """

    declared_type: str
    max_frames: int
    frame_seconds: float
    seconds: float = math.inf
    tiles: int = 1
    closer: tuple[View, ...] = ()
    hashes: bool = False


@dataclass(frozen=True)
class Facts:
    """What a file turned out to be.

    `frames` is how many were decoded and compared, `total_frames` how many there are (as far as the
    file tells). `partial` says why a part of the file could not be looked at, if so.
    """

    media_type: str
    width: int  # pixels, upright
    height: int
    frames: int
    total_frames: int
    duration: float  # seconds; 0 for what does not move
    partial: str


@dataclass(frozen=True)
class DecodedMedia:
    """The views of one file; `pixels[i]` are those of `views[i]`: height × width × 3 bytes, RGB.

    `hashes`, if they were asked for, has one for each picture that views were made of.
    """

    facts: Facts
    views: tuple[View, ...]
    pixels: Sequence[bytes]
    hashes: tuple[PerceptualHash, ...] = ()
