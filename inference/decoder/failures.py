"""What a decoder's exception says about a file."""

from __future__ import annotations

from PIL import Image, UnidentifiedImageError

from inference.errors import Reason, ScoringError

_ENDS_EARLY = ("truncated", "end of file", "ends too early", "no more images", "not enough data")


def what_is_wrong(error: BaseException) -> ScoringError:
    """The error to report for what a decoder raised.

    Decoders of hostile files raise nearly anything: OSError, ValueError, SyntaxError, EOFError,
    RuntimeError, struct.error, IndexError, UnicodeDecodeError and zlib.error were all seen, and
    pyo3's PanicException is no Exception at all.
    """
    if isinstance(error, ScoringError):
        return error
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ScoringError(Reason.TOO_MANY_PIXELS, "a frame has too many pixels")
    if isinstance(error, MemoryError):
        return ScoringError(Reason.DECODER_OUT_OF_MEMORY, "the file takes too much memory")
    text = " ".join(str(error).split())[:200]
    if isinstance(error, UnidentifiedImageError):
        return ScoringError(Reason.UNDECODABLE, "the file's header is broken")
    if isinstance(error, EOFError) or any(words in text.lower() for words in _ENDS_EARLY):
        return ScoringError(Reason.TRUNCATED, "the file ends too early")
    return ScoringError(Reason.UNDECODABLE, f"the file is broken: {text or type(error).__name__}")
