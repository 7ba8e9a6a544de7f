"""Whether a file ends before its container says that it does, and what is whole of it.

Only the outermost level is read. PNG, JPEG and GIF are no containers in this sense: their decoders
notice by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

_BOXES = frozenset({"image/avif", "video/mp4"})
_TOP_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"meta", b"moof", b"mfra", b"sidx", b"styp"}
    | {b"uuid", b"udta", b"wide", b"pdin", b"emsg", b"prft", b"ssix", b"mvex"}
)
_RIFF_HEADER_BYTES = 12
_PNG_HEADER_BYTES = 8
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


def has_box(data: bytes, wanted: bytes) -> bool:
    """Whether an AVIF or MP4 file has such a box at its outermost level."""
    return any(data[start + 4 : start + 8] == wanted for start, _ in _boxes(data))


def apng_frames(data: bytes) -> int:
    """How many frames an animated PNG has, by its frames' own headers; 0 if it counts them twice.

    Decoders disagree on files whose control chunk says otherwise.
    """
    position, frames, controls = _PNG_HEADER_BYTES, 0, 0
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        frames += kind == b"fcTL"
        controls += kind == b"acTL"
        position += 12 + int.from_bytes(data[position : position + 4])
    return frames if controls == 1 else 0


def _end_of_boxes(data: bytes) -> int:
    return max((end for _, end in _boxes(data)), default=0)


def _boxes(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the outermost boxes start and end; what follows the last known one is passed over."""
    position = 0
    while position + 8 <= len(data) and data[position + 4 : position + 8] in _TOP_BOXES:
        size = int.from_bytes(data[position : position + 4])
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16])
        end = position + max(size, 8) if size else len(data)
        yield position, end
        position = end


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
