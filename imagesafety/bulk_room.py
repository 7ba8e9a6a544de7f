"""How much of a source is in memory at once."""

from __future__ import annotations

import asyncio


class Room:
    """A number of images and of bytes; one image goes in however large it is."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images, self._max_bytes = max_images, max_bytes
        self._images = self._bytes = 0
        self._left = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Waits for a place; for a single caller."""
        while self._images and (
            self._images >= self._max_images or self._bytes + size > self._max_bytes
        ):
            self._left.clear()
            await self._left.wait()
        self._images += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Gives a place back."""
        self._images -= 1
        self._bytes -= size
        self._left.set()
