"""How much of strangers' images is in memory at once: a count and a number of bytes.

No client takes all of it, and bulk work no more than half, so that uploads find room.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from inference.errors import Reason, ScoringError
from inference.shared_file import SMALL_BYTES, SharedFile


@dataclass(frozen=True)
class Sender:
    """Who brings an image, and whether somebody waits for it."""

    client: str
    bulk: bool


@dataclass(frozen=True)
class AdmissionLimits:
    """Images and bytes in the service at once; `max_bytes` must hold one of `max_image_bytes`.

    `max_client_images` are those of one client (0: three quarters of `max_images`), unless
    `quotas` has a count for it, by name.
    """

    max_images: int
    max_bytes: int
    max_image_bytes: int
    max_client_images: int = 0
    quotas: Mapping[str, int] = field(default_factory=dict)

    def images_of(self, client: str) -> int:
        """How many places one client may take."""
        return self.quotas.get(client, self.max_client_images or -(-3 * self.max_images // 4))

    @property
    def bulk_images(self) -> int:
        """How many places bulk work may take."""
        return max(1, self.max_images // 2)

    @property
    def bulk_bytes(self) -> int:
        """How many bytes bulk work may take."""
        return max(self.max_image_bytes, self.max_bytes // 2)


class ImageBuffer:
    """Collects the bytes of one image, within the image's limit and the service's."""

    def __init__(self, admission: Admission, bulk: bool, reserved: int) -> None:
        self._admission = admission
        self._bulk = bulk
        self._taken = reserved
        self._file = SharedFile("upload", kept=SMALL_BYTES)

    def append(self, chunk: bytes) -> None:
        """Adds bytes. Raises ScoringError with TOO_MANY_BYTES or QUEUE_FULL."""
        size = len(self._file) + len(chunk)
        if size > self._admission.max_image_bytes:
            message = f"the image is over {self._admission.max_image_bytes} bytes"
            raise ScoringError(Reason.TOO_MANY_BYTES, message)
        if size > self._taken:
            self._admission.take_bytes(size - self._taken, self._bulk)
            self._taken = size
        with _memory_is_short():
            self._file.append(chunk)

    def complete(self) -> SharedFile:
        """The whole image, until `release`; what was reserved for more is given back."""
        self._admission.give_back_bytes(self._taken - len(self._file), self._bulk)
        self._taken = len(self._file)
        return self._file

    def release(self) -> None:
        """Gives all bytes back."""
        self._admission.give_back_bytes(self._taken, self._bulk)
        self._taken = 0
        self._file.close()


class Admission:
    """Counts the images in the service and their bytes, and refuses what is too much."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.max_image_bytes = limits.max_image_bytes
        self._limits = limits
        self._arriving = 0  # calls whose header did not come yet
        self._images = 0
        self._bulk_images = 0
        self._client_images: Counter[str] = Counter()  # only of those who have any
        self._bytes = 0
        self._bulk_bytes = 0
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
    def arriving(self) -> Iterator[None]:
        """A place for a call while its header is waited for; whose it is, is not known yet.

        Raises ScoringError with QUEUE_FULL if there are as many of these as images may be.
        """
        if self._arriving >= self._limits.max_images:
            raise ScoringError(Reason.QUEUE_FULL, "too many calls wait with their header")
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    @contextmanager
    def image(self, sender: Sender, reserve: int = 0) -> Iterator[ImageBuffer]:
        """A place for one image and for `reserve` of its bytes.

        Raises ScoringError with QUEUE_FULL if there is none.
        """
        full = self._no_place(sender)
        if full:
            raise ScoringError(Reason.QUEUE_FULL, full)
        self.take_bytes(reserve, sender.bulk)
        buffer = ImageBuffer(self, sender.bulk, reserve)
        self._images += 1
        self._bulk_images += sender.bulk
        self._client_images[sender.client] += 1
        try:
            yield buffer
        finally:
            self._images -= 1
            self._bulk_images -= sender.bulk
            self._client_images[sender.client] -= 1
            if not self._client_images[sender.client]:
                del self._client_images[sender.client]
            buffer.release()

    async def wait_for_room(self, sender: Sender, size: int) -> None:
        """Returns when there is a place for an image of `size` bytes.

        Nobody must wait here who holds a place that only waiting on would free.
        """
        while self._no_place(sender) or self._no_bytes(size, sender.bulk):
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)
            try:
                await woken
            finally:
                self._waiting.discard(woken)

    def take_bytes(self, count: int, bulk: bool) -> None:
        """Counts bytes in. Raises ScoringError with QUEUE_FULL."""
        full = self._no_bytes(count, bulk)
        if full:
            raise ScoringError(Reason.QUEUE_FULL, full)
        self._bytes += count
        self._bulk_bytes += bulk * count

    def give_back_bytes(self, count: int, bulk: bool) -> None:
        """Counts bytes out, and lets those who wait look again."""
        self._bytes -= count
        self._bulk_bytes -= bulk * count
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)

    def _no_place(self, sender: Sender) -> str:
        """Why there is no place for one image more; empty if there is one."""
        limits = self._limits
        if self._images >= limits.max_images:
            return "the service has as many images as it takes"
        if self._client_images[sender.client] >= limits.images_of(sender.client):
            return "the service has as many images of this client as it takes"
        if sender.bulk and self._bulk_images >= limits.bulk_images:
            return "the service has as many images of bulk work as it takes"
        return ""

    def _no_bytes(self, count: int, bulk: bool) -> str:
        if self._bytes + count > self._limits.max_bytes:
            return "the service has as many bytes as it takes"
        if bulk and self._bulk_bytes + count > self._limits.bulk_bytes:
            return "the service has as many bytes of bulk work as it takes"
        return ""


@contextmanager
def _memory_is_short() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScoringError(Reason.QUEUE_FULL, "the service has no memory for the image") from error
