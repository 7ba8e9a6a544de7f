"""Bytes that two processes can read without a copy in between: an anonymous file in memory."""

from __future__ import annotations

import os


class SharedFile:
    """A memfd. What is in it exists once, is never on disk, and goes when the last holder closes.

    It is read with system calls, not mapped: whoever else holds it could cut a mapping short, and
    a cut mapping kills its reader.
    """

    def __init__(self, name: str) -> None:
        """`name` shows in /proc, for people. Raises OSError without file descriptors or memory."""
        self._descriptor = -1
        self._descriptor = os.memfd_create(name)
        self._size = 0

    def __len__(self) -> int:
        """How many bytes were appended here."""
        return self._size

    def fileno(self) -> int:
        """The file descriptor."""
        return self._descriptor

    def append(self, data: bytes) -> None:
        """Adds bytes at the end. Raises OSError when memory is short."""
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest)
            self._size += written
            rest = rest[written:]

    def read(self, count: int, offset: int) -> bytes:
        """Up to `count` bytes from `offset`: fewer if the file ends."""
        return os.pread(self._descriptor, count, offset)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the bytes. Closing again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
