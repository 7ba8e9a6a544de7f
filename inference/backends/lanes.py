"""How a CPU's threads are divided among the batches that are encoded side by side.

The threads of one forward pass wait for each other after each layer, and for long where decoders
take one of their cores. Two batches with half of the threads each wait less: with 2 cores and
ViT-B-32 in int8 they are a fifth faster, and two fifths where something else is busy. A batch that
is alone still gets all threads, so that a single upload is answered soon.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_MOST = 4  # lanes that are made without being asked for


@dataclass(frozen=True)
class CpuShare:
    """The threads of a tower, and how many batches they are divided among."""

    threads: int
    lanes: int

    @classmethod
    def of(cls, threads: int, lanes: int) -> CpuShare:
        """From the settings `threads` and `parallel_batches`, of which 0 leaves it to us."""
        threads = threads or len(os.sched_getaffinity(0))
        most = min(lanes or _MOST, threads)
        if not lanes:  # as many as share the threads evenly, if that is more than one
            most = next((count for count in range(most, 1, -1) if threads % count == 0), most)
        return cls(threads, most)

    @property
    def threads_of_lane(self) -> int:
        """The threads of a batch that is not alone: rather one too many than a core idle."""
        return -(-self.threads // self.lanes)


class Lanes:
    """Tells each batch whether it is alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    @contextlib.contextmanager
    def batch(self) -> Iterator[bool]:
        """Around a forward pass: whether none ran when it began."""
        with self._lock:
            alone = self._running == 0
            self._running += 1
        try:
            yield alone
        finally:
            with self._lock:
                self._running -= 1
