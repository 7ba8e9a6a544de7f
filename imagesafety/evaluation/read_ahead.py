"""Reads and hashes files in threads, some way ahead of whoever takes them."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import threading
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from imagesafety.evaluation.material import LabelledFile

THREADS = 4
_MOST_FILES, _MOST_BYTES, _MOST_SECONDS = 32, 4 * 1024 * 1024, 0.05  # a thread hands over at once
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file and its bytes; `data` is None where `problem` says why, or it is too large."""

    file: LabelledFile
    sha256: bytes = b""
    data: bytes | None = None
    problem: str = ""


async def read_ahead(
    files: Iterable[LabelledFile], most_bytes: int
) -> AsyncGenerator[ReadFile, None]:
    """The files with their bytes, in about the order in which they come.

    Of those with over `most_bytes` only the hash is taken. At most some megabytes wait to be taken.
    Raises what `files` raises, after those that came before.
    """
    source = _Shared(iter(files))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read-ahead") as threads:
        try:
            waiting = [
                loop.run_in_executor(threads, _read_some, source, most_bytes)
                for _ in range(THREADS)
            ]
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    waiting.remove(finished)
                    batch = finished.result()
                    if batch:
                        waiting.append(
                            loop.run_in_executor(threads, _read_some, source, most_bytes)
                        )
                    for found in batch:
                        yield found
        finally:
            source.close()
    if source.error is not None:
        raise source.error


class _Shared:
    """An iterator that several threads take from; it ends for all of them when it is closed."""

    def __init__(self, files: Iterator[LabelledFile]) -> None:
        self._files, self._lock, self._closed = files, threading.Lock(), False
        self.error: Exception | None = None
        """What it broke off with."""

    def take(self) -> LabelledFile | None:
        with self._lock:
            if self._closed:
                return None
            try:
                return next(self._files, None)
            except Exception as error:
                self.error, self._closed = error, True
                return None

    def close(self) -> None:
        self._closed = True


def _read_some(source: _Shared, most_bytes: int) -> list[ReadFile]:
    """The next files; none if there are no more."""
    found: list[ReadFile] = []
    size, end = 0, time.monotonic() + _MOST_SECONDS
    while len(found) < _MOST_FILES and size < _MOST_BYTES:
        file = source.take()
        if file is None:
            break
        found.append(_read(file, most_bytes))
        size += len(found[-1].data or b"")
        if time.monotonic() > end:  # on slow storage what is there is not held up
            break
    return found


def _read(file: LabelledFile, most_bytes: int) -> ReadFile:
    try:
        # Whoever opens a pipe waits for its other end.
        if not stat.S_ISREG(file.path.stat().st_mode):
            return ReadFile(file, problem="not a regular file")
        with file.path.open("rb") as opened:
            data = opened.read(most_bytes + 1)
            if len(data) <= most_bytes:
                return ReadFile(file, hashlib.sha256(data).digest(), data)
            digest = hashlib.sha256(data)
            while piece := opened.read(_PIECE):
                digest.update(piece)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return ReadFile(file, problem=f"cannot be read: {reason or error}")
    problem = f"larger than the {most_bytes} bytes that the service takes"
    return ReadFile(file, digest.digest(), problem=problem)
