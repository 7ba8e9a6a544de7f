"""Which regions of a frame are encoded: together they show every pixel of it.

Plain geometry. A frame whose sides differ from the model's by at most a factor of 1.5 is one
region, the whole. A longer one becomes overlapping regions of the model's own shape along its long
side, so that its edges are seen and nothing is squeezed much.
"""

from __future__ import annotations

import itertools
import math

from inference.decoder.media import Region

# How far a frame may be from the model's shape and still be seen whole; and a pixel, for rounding.
LONGEST_WHOLE = 1.5
OVERLAP = 0.2  # of neighbouring regions, at least: 16:9 becomes two, 4:1 five
MAX_REGIONS = 16  # a strip longer than 13:1 is cut into regions longer than the model's shape
_SMALLEST_TILE = 0.5  # of the model's input: smaller ones would be magnified more than twice


def regions_of(width: int, height: int, input_size: tuple[int, int]) -> tuple[Region, ...]:
    """The regions of a frame of `width`×`height` for a model that takes `input_size`."""
    aspect = input_size[0] / input_size[1]
    across, down = width, height * aspect
    if across <= LONGEST_WHOLE * down + 1 and down <= LONGEST_WHOLE * across + aspect:
        return (Region(0, 0, width, height),)
    if across > down:
        spans = _spans(width, height * aspect)
        return tuple(Region(start, 0, length, height) for start, length in spans)
    spans = _spans(height, width / aspect)
    return tuple(Region(0, start, width, length) for start, length in spans)


def tiles_of(region: Region, finest: int, input_size: tuple[int, int]) -> tuple[Region, ...]:
    """The grids of 2×2 to `finest`×`finest` tiles of a region, as far as its pixels suffice.

    Tiles of one grid meet without overlap: what lies on a seam of one grid is inside a tile of the
    other, and whatever is too large for that can be seen in the region itself.
    """
    tiles: list[Region] = []
    for count in range(2, finest + 1):
        across, down = _cuts(region.width, count), _cuts(region.height, count)
        enough = _SMALLEST_TILE * count
        if region.width < enough * input_size[0] or region.height < enough * input_size[1]:
            break
        tiles += (
            Region(region.left + left, region.top + top, right - left, bottom - top)
            for top, bottom in itertools.pairwise(down)
            for left, right in itertools.pairwise(across)
        )
    return tuple(tiles)


def _spans(long_side: int, wanted: float) -> list[tuple[int, int]]:
    """Start and length of the spans that cover a side, evenly spread."""
    length = min(long_side, max(1, round(wanted)))
    count = math.ceil((long_side - length) / (length * (1 - OVERLAP))) + 1
    if count > MAX_REGIONS:
        count = MAX_REGIONS
        length = math.ceil(long_side / (1 + (count - 1) * (1 - OVERLAP)))
    free = long_side - length
    return [(round(free * index / (count - 1)), length) for index in range(count)]


def _cuts(side: int, count: int) -> list[int]:
    return [round(side * index / count) for index in range(count + 1)]
