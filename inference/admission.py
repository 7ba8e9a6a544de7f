"""How much of strangers' images is in memory at once: a count and a number of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inference.errors import Reason, ScoringError


class ImageBuffer:
    """Collects the bytes of one image, within the image's limit and the service's."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._data = bytearray()

    def append(self, chunk: bytes) -> None:
        """Adds bytes. Raises ScoringError with TOO_MANY_BYTES or QUEUE_FULL."""
        if len(self._data) + len(chunk) > self._admission.max_image_bytes:
            message = f"the image is over {self._admission.max_image_bytes} bytes"
            raise ScoringError(Reason.TOO_MANY_BYTES, message)
        self._admission.take_bytes(len(chunk))
        self._data += chunk

    def data(self) -> bytes:
        """The bytes so far."""
        return bytes(self._data)

    def release(self) -> None:
        """Gives the bytes back."""
        self._admission.give_back_bytes(len(self._data))
        self._data = bytearray()


class Admission:
    """Counts the images in the service and their bytes, and refuses what is too much."""

    def __init__(self, *, max_images: int, max_bytes: int, max_image_bytes: int) -> None:
        self.max_image_bytes = max_image_bytes
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._images = 0
        self._bytes = 0

    @contextmanager
    def image(self) -> Iterator[ImageBuffer]:
        """A place for one image. Raises ScoringError with QUEUE_FULL if there is none."""
        if self._images >= self._max_images:
            raise ScoringError(Reason.QUEUE_FULL, "the service has as many images as it takes")
        self._images += 1
        buffer = ImageBuffer(self)
        try:
            yield buffer
        finally:
            buffer.release()
            self._images -= 1

    def take_bytes(self, count: int) -> None:
        """Counts bytes in. Raises ScoringError with QUEUE_FULL."""
        if self._bytes + count > self._max_bytes:
            raise ScoringError(Reason.QUEUE_FULL, "the service has as many bytes as it takes")
        self._bytes += count

    def give_back_bytes(self, count: int) -> None:
        """Counts bytes out."""
        self._bytes -= count
