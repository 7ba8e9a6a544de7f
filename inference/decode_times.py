"""How long a file keeps a decoder busy, and how many views it has, as measured."""

from __future__ import annotations

_NEWEST = 0.05  # weight of the newest file in the moving averages: files differ much


class DecodeTimes:
    """Moving averages over the files that were decoded; plain code without a clock."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._files = 0
        self._seconds = 0.0
        self.views = 1.0
        """Views of a file."""

    def __call__(self, files: int) -> float:
        """Seconds until a decoder is free for one more file than so many.

        0 while there are more decoders than files, or nothing was measured.
        """
        return self._seconds * files / self._workers if files >= self._workers else 0.0

    def observe(self, seconds: float, views: int) -> None:
        """A file kept a decoder busy for so long, and has so many views."""
        self._files += 1
        newest = max(_NEWEST, 1 / self._files)  # the first ones count alike
        self._seconds += newest * (seconds - self._seconds)
        self.views += newest * (max(1, views) - self.views)
