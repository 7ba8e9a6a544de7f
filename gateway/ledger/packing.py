"""Views and perceptual hashes as compact bytes, for one column each. Pure code.

The first byte is the version of the layout; numbers are little-endian. Similarities are float32, as
they come from inference, so nothing is lost.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence

from imagesafety.scores import PerceptualHash, View

VERSION = 1

_BACKGROUNDS = ("", "white", "black")
_HEAD = struct.Struct("<BI")  # version, number of items
_VIEW = struct.Struct("<IdIIIIBI")  # frame, seconds, region, background, number of similarities
_HASH = struct.Struct("<32sBIB")  # PDQ, quality, frame, background
_FLOAT_BYTES = 4


def pack_views(views: Sequence[View]) -> bytes:
    """The bytes of views. Raises ValueError for values that no view can have."""
    parts = [_HEAD.pack(VERSION, len(views))]
    try:
        for view in views:
            parts.append(
                _VIEW.pack(
                    view.frame_index,
                    view.frame_time,
                    *view.region,
                    _BACKGROUNDS.index(view.background),
                    len(view.similarities),
                )
            )
            parts.append(_little_endian(array("f", view.similarities)).tobytes())
    except (struct.error, TypeError) as error:
        raise ValueError(f"a view that can't be packed: {error}") from error
    return b"".join(parts)


def unpack_views(packed: bytes) -> tuple[View, ...]:
    """The views in bytes of `pack_views`. Raises ValueError for any other bytes."""
    count = _count(packed)
    views, offset = [], _HEAD.size
    for _ in range(count):
        if len(packed) < offset + _VIEW.size:
            raise ValueError("packed views end too early")
        frame, seconds, left, top, width, height, background, length = _VIEW.unpack_from(
            packed, offset
        )
        offset += _VIEW.size
        end = offset + length * _FLOAT_BYTES
        if len(packed) < end:
            raise ValueError("packed views end too early")
        similarities = array("f", packed[offset:end])
        offset = end
        views.append(
            View(
                frame_index=frame,
                frame_time=seconds,
                region=(left, top, width, height),
                similarities=tuple(_little_endian(similarities)),
                background=_background(background),
            )
        )
    _check_end(packed, offset)
    return tuple(views)


def pack_hashes(hashes: Sequence[PerceptualHash]) -> bytes:
    """The bytes of perceptual hashes. Raises ValueError for values that no hash can have."""
    parts = [_HEAD.pack(VERSION, len(hashes))]
    try:
        for found in hashes:
            if len(found.pdq) != 32:
                raise ValueError(f"a PDQ has 32 bytes, not {len(found.pdq)}")
            background = _BACKGROUNDS.index(found.background)
            parts.append(_HASH.pack(found.pdq, found.quality, found.frame_index, background))
    except (struct.error, TypeError) as error:
        raise ValueError(f"a perceptual hash that can't be packed: {error}") from error
    return b"".join(parts)


def unpack_hashes(packed: bytes) -> tuple[PerceptualHash, ...]:
    """The hashes in bytes of `pack_hashes`. Raises ValueError for any other bytes."""
    count = _count(packed)
    _check_end(packed, _HEAD.size + count * _HASH.size)
    return tuple(
        PerceptualHash(pdq, quality, frame, _background(background))
        for pdq, quality, frame, background in _HASH.iter_unpack(packed[_HEAD.size :])
    )


def _count(packed: bytes) -> int:
    if len(packed) < _HEAD.size:
        raise ValueError("packed bytes end too early")
    version, count = _HEAD.unpack_from(packed)
    if version != VERSION:
        raise ValueError(f"packed bytes of unknown version {version}")
    return int(count)


def _check_end(packed: bytes, end: int) -> None:
    if len(packed) != end:
        raise ValueError(f"{len(packed)} packed bytes where {end} belong")


def _background(index: int) -> str:
    if index >= len(_BACKGROUNDS):
        raise ValueError(f"no background has number {index}")
    return _BACKGROUNDS[index]


def _little_endian(values: array[float]) -> array[float]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
