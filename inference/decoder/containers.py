"""Whether a file ends before its container says that it does, and what is whole of it.

Only the outermost level is read. PNG, JPEG and GIF are no containers in this sense: their decoders
notice by themselves.
"""

from __future__ import annotations

_BOXES = frozenset({"image/avif", "video/mp4"})
_RIFF_HEADER_BYTES = 12
_WEBP_FRAME = b"ANMF"


def is_cut_off(data: bytes, media_type: str) -> bool:
    """Whether bytes are missing at the end of a WebP, AVIF, MP4 or WebM file."""
    if media_type == "image/webp":
        # Some writers forget the padding of the last chunk.
        return int.from_bytes(data[4:8], "little") + 8 > len(data) + 1
    if media_type in _BOXES:
        return _end_of_boxes(data) > len(data)
    if media_type == "video/webm":
        return _end_of_elements(data) > len(data)
    return False


def whole_frames(data: bytes) -> bytes | None:
    """An animated WebP file without what is broken at its end; None without a whole frame."""
    position, frames = _RIFF_HEADER_BYTES, 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + size + size % 2
        if end > len(data):
            break
        frames += data[position : position + 4] == _WEBP_FRAME
        position = end
    if not frames:
        return None
    return data[:4] + (position - 8).to_bytes(4, "little") + data[8:position]


def _end_of_boxes(data: bytes) -> int:
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16])
        if size == 0:  # to the end of the file
            return len(data)
        position += max(size, 8)
    return position


def _end_of_elements(data: bytes) -> int:
    """The end of the header and of the segment after it, if that tells its size."""
    position = 0
    for _ in range(2):
        id_length = _vint_length(data, position)
        size_length = _vint_length(data, position + id_length)
        start = position + id_length + size_length
        mark = 1 << 7 * size_length
        size = int.from_bytes(data[position + id_length : start]) & (mark - 1)
        if size_length == 0 or size == mark - 1:  # unknown: the file was written as a stream
            return min(start, len(data))
        position = start + size
    return position


def _vint_length(data: bytes, position: int) -> int:
    """How many bytes a number of variable size takes (RFC 8794, section 4); 0 if there is none."""
    first = data[position] if position < len(data) else 0
    return 9 - first.bit_length() if first else 0
