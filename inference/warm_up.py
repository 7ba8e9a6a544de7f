"""Measures, before the first upload, how long batches of each size take."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from inference.batch_times import LONGEST_SECONDS
from inference.encoder import Embeddings

_LARGEST = 256  # that `auto` tries
_SURELY = 8  # tried in any case: rates often stay the same, and then rise
_NO_GAIN = 1.05  # better rates than this, or the next size is not tried
_REPEATS = 2
_IN_A_ROW = 2  # batches of each lane
_SECONDS = 4.0  # after which no larger size is begun

Encode = Callable[[Sequence[bytes]], Awaitable[Embeddings]]

log = logging.getLogger("inference")


async def measure_batches(
    encode: Encode, view_bytes: int, max_batch: int | None, overlap: int = 1
) -> dict[int, float]:
    """Seconds of a batch, for sizes from 1 to `max_batch`; None: as far as it pays.

    With `overlap` batches at once, it is the time from the end of one to the end of the next.
    Raises what `encode` raises.
    """
    picture = random.Random(0).randbytes(view_bytes)  # noqa: S311 - noise will do
    end = time.perf_counter() + _SECONDS
    measured: dict[int, float] = {}
    # What is made for batches that run side by side is made now, not for the first that do.
    await _round(encode, [picture], overlap)
    for size in _sizes(max_batch):
        if measured and time.perf_counter() > end:
            break
        batch = [picture] * size
        # What happens only the first time is not measured, unless it takes long.
        first = await _round(encode, batch, 1)
        repeats = _REPEATS if first < LONGEST_SECONDS else 1
        # The least: whatever else the machine does can only make it look slower.
        rounds = [await _round(encode, batch, overlap) for _ in range(repeats)]
        measured[size] = min((seconds for seconds in rounds if seconds > 0), default=first)
        if max_batch is None and not _pays(measured, overlap):
            break
    rates = ", ".join(f"{size}: {size / max(s, 1e-9):.3g}" for size, s in measured.items())
    log.info("images a second by batch: %s", rates)
    return measured


async def _round(encode: Encode, batch: Sequence[bytes], overlap: int) -> float:
    """Seconds from the end of one batch to the end of the next, with `overlap` at once."""

    async def lane(count: int) -> list[float]:
        times = [time.perf_counter()]
        for _ in range(count):
            await encode(batch)
            times.append(time.perf_counter())
        return times

    if overlap == 1:
        begin, end = await lane(1)
        return end - begin
    return seconds_between(await asyncio.gather(*(lane(_IN_A_ROW) for _ in range(overlap))))


def seconds_between(lanes: Sequence[Sequence[float]]) -> float:
    """Seconds from batch to batch, while every lane runs its second batch or a later one.

    `lanes` has for each the time of its beginning and of the end of each batch. The first batches
    are left out, because one of them has the device to itself for a while.
    """
    begin, end = max(lane[1] for lane in lanes), min(lane[-1] for lane in lanes)
    batches = sum(
        max(0.0, min(stop, end) - max(start, begin)) / (stop - start)
        for lane in lanes
        for start, stop in itertools.pairwise(lane)
        if stop > start
    )
    return (end - begin) / batches if batches else 0.0


def _sizes(max_batch: int | None) -> list[int]:
    most = max_batch or _LARGEST
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def _pays(measured: dict[int, float], overlap: int) -> bool:
    """Whether a size twice the last one may be better."""
    *_, last = measured.items()
    size, seconds = last
    if 2 * seconds * overlap > LONGEST_SECONDS:
        return False
    if size < _SURELY:
        return True
    before = [took / other for other, took in measured.items() if other <= size // 4]
    return not before or _NO_GAIN * seconds / size < min(before)
