"""How much of strangers' images is in memory at once: a count and a number of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from inference.errors import Reason, ScoringError
from inference.shared_file import SMALL_BYTES, SharedFile


class ImageBuffer:
    """Collects the bytes of one image, within the image's limit and the service's."""

    def __init__(self, admission: Admission, reserved: int) -> None:
        self._admission = admission
        self._taken = reserved
        self._file = SharedFile("upload", kept=SMALL_BYTES)

    def append(self, chunk: bytes) -> None:
        """Adds bytes. Raises ScoringError with TOO_MANY_BYTES or QUEUE_FULL."""
        size = len(self._file) + len(chunk)
        if size > self._admission.max_image_bytes:
            message = f"the image is over {self._admission.max_image_bytes} bytes"
            raise ScoringError(Reason.TOO_MANY_BYTES, message)
        if size > self._taken:
            self._admission.take_bytes(size - self._taken)
            self._taken = size
        with _memory_is_short():
            self._file.append(chunk)

    def complete(self) -> SharedFile:
        """The whole image, until `release`; what was reserved for more is given back."""
        self._admission.give_back_bytes(self._taken - len(self._file))
        self._taken = len(self._file)
        return self._file

    def release(self) -> None:
        """Gives all bytes back."""
        self._admission.give_back_bytes(self._taken)
        self._taken = 0
        self._file.close()


class Admission:
    """Counts the images in the service and their bytes, and refuses what is too much."""

    def __init__(self, *, max_images: int, max_bytes: int, max_image_bytes: int) -> None:
        """`max_bytes` must leave room for one image of `max_image_bytes`."""
        self.max_image_bytes = max_image_bytes
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._images = 0
        self._bytes = 0
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def images(self) -> int:
        """How many images there are."""
        return self._images

    @property
    def bytes(self) -> int:
        """How many bytes they take, or have reserved."""
        return self._bytes

    @contextmanager
    def image(self, reserve: int = 0) -> Iterator[ImageBuffer]:
        """A place for one image and for `reserve` of its bytes.

        Raises ScoringError with QUEUE_FULL if there is none.
        """
        if self._images >= self._max_images:
            raise ScoringError(Reason.QUEUE_FULL, "the service has as many images as it takes")
        self.take_bytes(reserve)
        buffer = ImageBuffer(self, reserve)
        self._images += 1
        try:
            yield buffer
        finally:
            self._images -= 1
            buffer.release()

    async def wait_for_room(self, size: int) -> None:
        """Returns when there is a place for an image of `size` bytes.

        Nobody must wait here who holds a place that only waiting on would free.
        """
        while self._images >= self._max_images or self._bytes + size > self._max_bytes:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)
            try:
                await woken
            finally:
                self._waiting.discard(woken)

    def take_bytes(self, count: int) -> None:
        """Counts bytes in. Raises ScoringError with QUEUE_FULL."""
        if self._bytes + count > self._max_bytes:
            raise ScoringError(Reason.QUEUE_FULL, "the service has as many bytes as it takes")
        self._bytes += count

    def give_back_bytes(self, count: int) -> None:
        """Counts bytes out, and lets those who wait look again."""
        self._bytes -= count
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


@contextmanager
def _memory_is_short() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScoringError(Reason.QUEUE_FULL, "the service has no memory for the image") from error
