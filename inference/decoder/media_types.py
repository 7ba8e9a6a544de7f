"""Which media type a file is, by its first bytes."""

from __future__ import annotations

from inference.errors import Reason, ScoringError

SCANNED = (
    "image/apng",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/webm",
)
# An animated PNG is a PNG: what tells them apart is a chunk that many programs pass over.
_SAME = frozenset({"image/png", "image/apng"})
_STARTS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\xff\x0a", "image/jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# Other pictures in the same container, and QuickTime, which browsers don't all show.
_OTHER_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_OTHER_BRANDS |= {b"qt  ", b"jp2 ", b"jpx ", b"crx ", b"M4A ", b"M4B "}
_MAX_BRANDS = 64
_EBML = b"\x1a\x45\xdf\xa3"
_DOC_TYPE = b"\x42\x82"
_EBML_HEADER_BYTES = 256


def detect(data: bytes) -> str | None:
    """The media type of a file, or None if it is none that is scanned."""
    for start, media_type in _STARTS:
        if data.startswith(start):
            return media_type
    if data.startswith(_PNG_SIGNATURE):
        return "image/apng" if _is_animated_png(data) else "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return _by_brands(data)
    if data.startswith(_EBML):
        return _by_doc_type(data[:_EBML_HEADER_BYTES])
    return None


def check_type(data: bytes, declared: str) -> str:
    """The media type of a file that was declared as `declared`, which may be empty.

    Raises ScoringError with EMPTY_IMAGE, UNSUPPORTED_TYPE or TYPE_MISMATCH.
    """
    if not data:
        raise ScoringError(Reason.EMPTY_IMAGE, "there are no image bytes")
    actual = detect(data)
    if actual is None:
        raise ScoringError(Reason.UNSUPPORTED_TYPE, "the bytes are no media type that is scanned")
    declared = declared.partition(";")[0].strip().lower()
    if declared not in ("", actual) and not _SAME.issuperset((declared, actual)):
        raise ScoringError(Reason.TYPE_MISMATCH, f"declared as {declared}, but it is {actual}")
    return actual


def _is_animated_png(data: bytes) -> bool:
    """Whether the control chunk of an animation stands before the picture."""
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        if kind in (b"IDAT", b"IEND"):
            return False
        if kind == b"acTL":
            return True
        position += 12 + int.from_bytes(data[position : position + 4])
    return False


def _by_brands(data: bytes) -> str | None:
    """AVIF and MP4 are one container; its first box names what it may be read as."""
    size = min(int.from_bytes(data[:4]), 16 + 4 * _MAX_BRANDS)
    major = data[8:12]
    compatible = {data[start : start + 4] for start in range(16, size - 3, 4)}
    if not _AVIF_BRANDS.isdisjoint({major} | compatible):
        return "image/avif"
    return None if major in _OTHER_BRANDS else "video/mp4"


def _by_doc_type(header: bytes) -> str | None:
    """WebM and other Matroska files are one container; its header names which it is."""
    place = header.find(_DOC_TYPE)
    if place < 0 or place + 3 > len(header):
        return None
    length = header[place + 2] & 0x7F
    doc_type = header[place + 3 : place + 3 + length].rstrip(b"\0")
    return "video/webm" if doc_type == b"webm" else None
