"""Reads the size of a JPEG XL file from its header, which its decoder does only by decoding it all.

ISO/IEC 18181-1: the codestream begins with a SizeHeader and an ImageMetadata bundle (D.2, D.3), its
bits least significant first; 18181-2: in a container, it is in the box `jxlc` or the boxes `jxlp`.
"""

from __future__ import annotations

from dataclasses import dataclass

_SIGNATURE = b"\xff\x0a"
_HEADER_BYTES = 64  # more than the bits that are read here
_SIZE_BITS = (9, 13, 18, 30)
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


@dataclass(frozen=True)
class JxlHeader:
    """Width and height in pixels as stored, before any turn, and whether there are more frames."""

    width: int
    height: int
    animated: bool


def read_jxl_header(data: bytes) -> JxlHeader:
    """The header of a file. Raises ValueError if there is none."""
    codestream = _codestream(data)
    if not codestream.startswith(_SIGNATURE):
        raise ValueError("no JPEG XL codestream")
    bits = _Bits(codestream[len(_SIGNATURE) : _HEADER_BYTES])
    width, height = _size(bits)
    return JxlHeader(width, height, _animated(bits))


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """The next bits as a number. Raises ValueError at the end."""
        if count > self._left:
            raise ValueError("the header ends too early")
        self._left -= count
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.read(1)
    height = _side(bits, small)
    ratio = bits.read(3)
    if ratio:
        numerator, denominator = _RATIOS[ratio]
        return height * numerator // denominator, height
    return _side(bits, small), height


def _side(bits: _Bits, small: int) -> int:
    if small:
        return 8 * (bits.read(5) + 1)
    return bits.read(_SIZE_BITS[bits.read(2)]) + 1


def _animated(bits: _Bits) -> bool:
    all_default = bits.read(1)
    if all_default or not bits.read(1):  # no extra fields
        return False
    bits.read(3)  # orientation
    if bits.read(1):  # an intrinsic size
        _size(bits)
    if bits.read(1):  # a preview
        _preview(bits)
    return bool(bits.read(1))


def _preview(bits: _Bits) -> None:
    eighths = bits.read(1)
    _preview_side(bits, eighths)
    if not bits.read(3):  # no ratio, so the width follows
        _preview_side(bits, eighths)


def _preview_side(bits: _Bits, eighths: int) -> None:
    selector = bits.read(2)
    bits.read((0, 0, 5, 9)[selector] if eighths else (6, 8, 10, 12)[selector])


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, out of its container if it has one."""
    if data.startswith(_SIGNATURE):
        return data
    stream, position = b"", 0
    while position + 8 <= len(data) and len(stream) < _HEADER_BYTES:
        size, kind, head = (
            int.from_bytes(data[position : position + 4]),
            data[position + 4 : position + 8],
            8,
        )
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16]), 16
        end = position + size if size else len(data)
        if end < position + head:
            break
        if kind == b"jxlc":
            return data[position + head : end][:_HEADER_BYTES]
        if kind == b"jxlp":
            stream += data[position + head + 4 : end][:_HEADER_BYTES]
        position = end
    return stream
