"""How far something is that takes long, on stderr: count, rate, time left.

On a terminal it is a bar; elsewhere, a line now and then.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

LINE_SECONDS = 10.0


class Progress:
    """Lines of text: for logs, and where nothing is to be seen."""

    def __init__(
        self,
        what: str,
        total: int | None,
        file: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._file, self._clock = what, total, file, clock
        self._count, self._note = 0, ""
        self._began = self._told = clock()

    def advance(self, n: int = 1) -> None:
        """Counts what was done."""
        self._count += n
        if self._clock() - self._told >= LINE_SECONDS:
            self._tell()

    def note(self, text: str) -> None:
        """Says something beside the count, from now on."""
        self._note = text

    def close(self) -> None:
        """Tells where it ended."""
        self._tell()

    def _tell(self) -> None:
        self._told = self._clock()
        line = progress_line(self._count, self._total, self._told - self._began, self._note)
        print(f"{self._what}: {line}", file=self._file, flush=True)


class _Bar(Progress):
    """A bar of tqdm's, as a terminal shows it."""

    def __init__(self, what: str, total: int | None, file: TextIO) -> None:
        super().__init__(what, total, file)
        from tqdm import tqdm  # only the extras that need it bring it

        self._bar = tqdm(
            desc=what, total=total, file=file, unit="", dynamic_ncols=True, smoothing=0.05
        )

    def advance(self, n: int = 1) -> None:
        self._bar.update(n)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        self._bar.close()


@contextlib.contextmanager
def progress(what: str, total: int | None, file: TextIO | None = None) -> Iterator[Progress]:
    """Shows progress on stderr, or another file, while the block runs."""
    shown = _progress(what, total, file or sys.stderr)
    try:
        yield shown
    finally:
        shown.close()


def _progress(what: str, total: int | None, file: TextIO) -> Progress:
    if file.isatty():
        with contextlib.suppress(ImportError):
            return _Bar(what, total, file)
    return Progress(what, total, file)


def progress_line(count: int, total: int | None, seconds: float, note: str = "") -> str:
    """How far it is, in words."""
    parts = [f"{count} of {total}" if total is not None else str(count)]
    rate = count / seconds if seconds > 0 else 0.0
    if rate:
        parts.append(f"{rate:.3g}/s" if rate < 100 else f"{rate:.0f}/s")
        if total is not None and count < total:
            parts.append(f"{_duration((total - count) / rate)} left")
    return ", ".join([*parts, *([note] if note else [])])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
