"""Measures, before the first upload, how long batches of each size take."""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections.abc import Callable, Sequence

from inference.encoder import Embeddings

_LARGEST = 256  # that `auto` tries
_LONGEST_SECONDS = 0.5  # of a batch that `auto` tries: what comes next waits for it
_NO_GAIN = 1.05  # better rates than this, or the next size is not tried
_REPEATS = 3
_SECONDS = 20.0  # after which what is left is estimated from what was measured

log = logging.getLogger("inference")


def measure_batches(
    encode: Callable[[Sequence[bytes]], Embeddings], view_bytes: int, max_batch: int | None
) -> dict[int, float]:
    """Seconds of a batch, for sizes from 1 to `max_batch`; None: as far as it pays.

    To be called in the thread that encodes later. Raises what `encode` raises.
    """
    picture = random.Random(0).randbytes(view_bytes)  # noqa: S311 - noise will do
    end = time.perf_counter() + _SECONDS
    measured: dict[int, float] = {}
    encode([picture])
    for size in _sizes(max_batch):
        if measured and time.perf_counter() > end:
            break
        batch = [picture] * size
        started = time.perf_counter()
        encode(batch)  # what happens only the first time is not measured, unless it takes long
        first = time.perf_counter() - started
        repeats = _REPEATS if first < _LONGEST_SECONDS else 1
        measured[size] = statistics.median(_seconds(encode, batch) for _ in range(repeats))
        if max_batch is None and not _pays(measured):
            break
    rates = ", ".join(f"{size}: {size / max(s, 1e-9):.3g}" for size, s in measured.items())
    log.info("images a second by batch: %s", rates)
    return measured


def _sizes(max_batch: int | None) -> list[int]:
    most = max_batch or _LARGEST
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def _seconds(encode: Callable[[Sequence[bytes]], Embeddings], batch: Sequence[bytes]) -> float:
    started = time.perf_counter()
    encode(batch)
    return time.perf_counter() - started


def _pays(measured: dict[int, float]) -> bool:
    """Whether a size twice the last one may be better."""
    *_, last = measured.items()
    size, seconds = last
    if 2 * seconds > _LONGEST_SECONDS:
        return False
    before = [took / other for other, took in measured.items() if other <= size // 4]
    return not before or _NO_GAIN * seconds / size < min(before)
