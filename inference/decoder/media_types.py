"""Which media type a file is, by its first bytes."""

from __future__ import annotations

from inference.errors import Reason, ScoringError

SCANNED = ("image/gif", "image/jpeg", "image/png", "image/webp")


def detect(data: bytes) -> str | None:
    """The media type of a file, or None if it is none that is scanned."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
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
    if declared not in ("", actual):
        raise ScoringError(Reason.TYPE_MISMATCH, f"declared as {declared}, but it is {actual}")
    return actual
