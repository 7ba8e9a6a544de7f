"""Bounds on strangers' images in memory at once: a count and a number of bytes.

No client takes all of it, and bulk work no more than half, so that uploads find room: of all
clients together, and of each one.
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
    """The client that brings an image; `bulk` if nobody waits for the answer."""

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
        """The number of places that one client may take."""
        return self.quotas.get(client, self.max_client_images or -(-3 * self.max_images // 4))

    def bulk_images_of(self, client: str) -> int:
        """The number of these that its bulk work may take."""
        return max(1, self.images_of(client) // 2)

    @property
    def client_bytes(self) -> int:
        """The number of bytes that one client may take."""
        return max(self.max_image_bytes, 3 * self.max_bytes // 4)

    @property
    def bulk_images(self) -> int:
        """The number of places that bulk work may take."""
        return max(1, self.max_images // 2)

    @property
    def bulk_bytes(self) -> int:
        """The number of bytes that bulk work may take."""
        return max(self.max_image_bytes, self.max_bytes // 2)


class ImageBuffer:
    """Collects the bytes of one image, within the image's limit and the service's."""

    def __init__(self, admission: Admission, sender: Sender, reserved: int) -> None:
        self._admission = admission
        self._sender = sender
        self._taken = reserved
        self._file = SharedFile("upload", kept=SMALL_BYTES)

    def append(self, chunk: bytes) -> None:
        """Adds bytes. Raises ScoringError with TOO_MANY_BYTES or QUEUE_FULL."""
        size = len(self._file) + len(chunk)
        if size > self._admission.max_image_bytes:
            message = f"the image is over {self._admission.max_image_bytes} bytes"
            raise ScoringError(Reason.TOO_MANY_BYTES, message)
        if size > self._taken:
            self._admission.take_bytes(size - self._taken, self._sender)
            self._taken = size
        with _memory_is_short():
            self._file.append(chunk)

    def complete(self) -> SharedFile:
        """The whole image, until `release`; what was reserved for more is given back."""
        self._admission.give_back_bytes(self._taken - len(self._file), self._sender)
        self._taken = len(self._file)
        return self._file

    def release(self) -> None:
        """Gives all bytes back."""
        self._admission.give_back_bytes(self._taken, self._sender)
        self._taken = 0
        self._file.close()


class Admission:
    """Counts the images in the service and their bytes, and refuses what is too much."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.max_image_bytes = limits.max_image_bytes
        self._limits = limits
        self.moves = 0
        """The number of times that an image came or went so far."""
        self._arriving = 0  # calls whose header did not come yet
        self._images = 0
        self._bulk_images = 0
        self._client_images: Counter[str] = Counter()  # only of those who have any, here and below
        self._client_bulk_images: Counter[str] = Counter()
        self._bytes = 0
        self._bulk_bytes = 0
        self._client_bytes: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []

    @property
    def images(self) -> int:
        """The number of images there are."""
        return self._images

    @property
    def bytes(self) -> int:
        """The number of bytes that they take, or have reserved."""
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
        full = self._client_is_full(sender, reserve) or self._is_full(sender, reserve)
        if full:
            raise ScoringError(Reason.QUEUE_FULL, full)
        self._count_bytes(reserve, sender)
        buffer = ImageBuffer(self, sender, reserve)
        self._count_image(1, sender)
        try:
            yield buffer
        finally:
            self._count_image(-1, sender)
            buffer.release()

    async def wait_for_room(self, sender: Sender, size: int) -> None:
        """Returns when there is a place for an image of `size` bytes, to be taken at once.

        Who waits longest goes first, unless it is its own client that has too much. Nobody must
        wait here who holds a place that only waiting on would free.
        """
        waiter = _Waiter(sender, size)
        self._waiting.append(waiter)
        try:
            while self._next() is not waiter or self._is_full(sender, size):
                waiter.woken = asyncio.get_running_loop().create_future()
                await waiter.woken
        finally:
            self._waiting.remove(waiter)
            self._wake()

    def take_bytes(self, count: int, sender: Sender) -> None:
        """Counts bytes in. Raises ScoringError with QUEUE_FULL."""
        full = self._client_has_bytes(count, sender) or self._has_bytes(count, sender)
        if full:
            raise ScoringError(Reason.QUEUE_FULL, full)
        self._count_bytes(count, sender)

    def give_back_bytes(self, count: int, sender: Sender) -> None:
        """Counts bytes out."""
        self._count_bytes(-count, sender)

    def _count_image(self, more: int, sender: Sender) -> None:
        self._images += more
        self.moves += 1
        _add(self._client_images, sender.client, more)
        if sender.bulk:
            self._bulk_images += more
            _add(self._client_bulk_images, sender.client, more)
        self._wake()

    def _count_bytes(self, more: int, sender: Sender) -> None:
        self._bytes += more
        self._bulk_bytes += sender.bulk * more
        _add(self._client_bytes, sender.client, more)
        self._wake()

    def _next(self) -> _Waiter | None:
        """The waiter that goes next, when there is room for it."""
        allowed = (one for one in self._waiting if not self._client_is_full(one.sender, one.size))
        return next(allowed, None)

    def _wake(self) -> None:
        """Lets the next one go if it can; when it has gone, it wakes the one after it."""
        waiter = self._next()
        if waiter is None or self._is_full(waiter.sender, waiter.size):
            return
        if waiter.woken is not None and not waiter.woken.done():
            waiter.woken.set_result(None)

    def _client_is_full(self, sender: Sender, size: int) -> str:
        """The reason against another image of the client; empty if there is none."""
        limits, client = self._limits, sender.client
        if self._client_images[client] >= limits.images_of(client):
            return "the service has as many images of this client as it takes"
        if sender.bulk and self._client_bulk_images[client] >= limits.bulk_images_of(client):
            return "the service has as many images of this client's bulk work as it takes"
        return self._client_has_bytes(size, sender)

    def _is_full(self, sender: Sender, size: int) -> str:
        """The reason against another image of any client; empty if there is none."""
        if self._images >= self._limits.max_images:
            return "the service has as many images as it takes"
        if sender.bulk and self._bulk_images >= self._limits.bulk_images:
            return "the service has as many images of bulk work as it takes"
        return self._has_bytes(size, sender)

    def _client_has_bytes(self, count: int, sender: Sender) -> str:
        if self._client_bytes[sender.client] + count > self._limits.client_bytes:
            return "the service has as many bytes of this client as it takes"
        return ""

    def _has_bytes(self, count: int, sender: Sender) -> str:
        if self._bytes + count > self._limits.max_bytes:
            return "the service has as many bytes as it takes"
        if sender.bulk and self._bulk_bytes + count > self._limits.bulk_bytes:
            return "the service has as many bytes of bulk work as it takes"
        return ""


@dataclass(eq=False)
class _Waiter:
    """An image that waits for room."""

    sender: Sender
    size: int
    woken: asyncio.Future[None] | None = None


def _add(counter: Counter[str], name: str, count: int) -> None:
    """Forgets names that have nothing: there may be any number of them."""
    counter[name] += count
    if not counter[name]:
        del counter[name]


@contextmanager
def _memory_is_short() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScoringError(Reason.QUEUE_FULL, "the service has no memory for the image") from error
