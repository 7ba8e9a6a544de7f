"""How much of a source is in memory at once."""

from __future__ import annotations

import asyncio


class Room:
    """So many files and bytes; one file goes in however large it is."""

    def __init__(self, max_files: int, max_bytes: int) -> None:
        self._max_files, self._max_bytes = max_files, max_bytes
        self._files = self._bytes = 0
        self._left = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Waits for a place; for a single caller."""
        while self._files and (
            self._files >= self._max_files or self._bytes + size > self._max_bytes
        ):
            self._left.clear()
            await self._left.wait()
        self._files += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Gives a place back."""
        self._files -= 1
        self._bytes -= size
        self._left.set()
