"""Bytes that two processes can read without a copy in between: an anonymous file in memory."""

from __future__ import annotations

import os

SMALL_BYTES = 32 * 1024
"""Up to here, copying bytes costs less than the system calls that sharing them takes."""


class SharedFile:
    """A memfd. What is in it exists once, is never on disk, and goes when the last holder closes.

    It is read with system calls, not mapped: whoever else holds it could cut a mapping short, and
    a cut mapping kills its reader.
    """

    def __init__(self, name: str, *, kept: int = 0) -> None:
        """`name` shows in /proc, for people. With `kept`, there is no memfd up to that many bytes.

        Raises OSError without file descriptors or memory.
        """
        self._descriptor = -1
        self._size = 0
        self._name = name
        self._most_kept = kept
        self._kept = bytearray() if kept else None
        if not kept:
            self._descriptor = os.memfd_create(name)

    def __len__(self) -> int:
        """How many bytes were appended here."""
        return self._size

    @property
    def kept(self) -> bytes | None:
        """The bytes, if they are so few that there is no memfd."""
        return None if self._kept is None else bytes(self._kept)

    def fileno(self) -> int:
        """The file descriptor; -1 without a memfd."""
        return self._descriptor

    def append(self, data: bytes) -> None:
        """Adds bytes at the end. Raises OSError when memory is short."""
        if self._kept is not None and self._size + len(data) <= self._most_kept:
            self._kept += data
            self._size += len(data)
            return
        if self._kept is not None:
            self._descriptor = os.memfd_create(self._name)
            data, self._kept, self._size = bytes(self._kept) + data, None, 0
        self._write(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest)
            self._size += written
            rest = rest[written:]

    def read(self, count: int, offset: int) -> bytes:
        """Up to `count` bytes of the memfd from `offset`: fewer if the file ends."""
        return os.pread(self._descriptor, count, offset)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the bytes. Closing again does nothing."""
        self._kept = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
