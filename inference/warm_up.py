"""Seconds of batches of each size: measured before the first upload, or kept earlier."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from inference.backends.cache import BackendCache
from inference.batch_times import LONGEST_SECONDS
from inference.encoder import Embeddings

LARGEST = 256  # that `auto` tries
_SURELY = 8  # tried in any case: rates often stay the same, and then rise
_NO_GAIN = 1.05  # better rates than this, or the next size is not tried
_REPEATS = 2
_IN_A_ROW = 2  # batches of each lane
_SECONDS = 4.0  # after which no larger size is begun
_NOT_HERE = 10.0  # times slower than a first pass: then kept times are not believed

Encode = Callable[[Sequence[bytes]], Awaitable[Embeddings]]

log = logging.getLogger("inference")


@dataclass(frozen=True)
class Batches:
    """Batches of one encoder, to be measured.

    `max_batch` is the largest size, None: as far as it pays; `overlap` batches run at once.
    """

    encode: Encode
    view_bytes: int
    max_batch: int | None
    overlap: int = 1

    @property
    def picture(self) -> bytes:
        """One picture to measure with."""
        return random.Random(0).randbytes(self.view_bytes)  # noqa: S311 - noise will do

    @property
    def largest(self) -> int:
        """The largest size that may be measured."""
        return self.max_batch or LARGEST

    def sizes(self) -> Iterator[int]:
        """The sizes to measure, if each pays; see `pays`."""
        return iter(
            [*(2**n for n in range(self.largest.bit_length()) if 2**n < self.largest), self.largest]
        )

    def pays(self, measured: dict[int, float]) -> bool:
        """True if a size twice the last one may be better, or is asked for."""
        return self.max_batch is not None or _pays(measured, self.overlap)


class KeptTimes:
    """The times in the cache folder that are of these batches on this machine."""

    def __init__(self, cache: BackendCache, batches: Batches, speed_key: str) -> None:
        """`speed_key` is that of the model; without one, nothing is kept."""
        self._cache = cache
        self._largest = batches.largest
        facts = f"{speed_key} {batches.max_batch} {batches.overlap}"
        self._key = speed_key and hashlib.sha256(facts.encode()).hexdigest()[:32]

    def read(self) -> dict[int, float] | None:
        """Seconds by size, as an earlier start measured them; None without any."""
        return self._cache.batch_times(self._key, self._largest) if self._key else None

    def keep(self, times: dict[int, float]) -> None:
        """Keep them for the next start."""
        if self._key:
            self._cache.keep_batch_times(self._key, times)


async def warmed_up(batches: Batches, kept: KeptTimes) -> dict[int, float] | None:
    """Run the first passes, so that no upload does; the kept times, if there are any.

    Raises what the encoder raises.
    """
    picture = [batches.picture]
    # What is made for batches that run side by side is made now, not for the first that do.
    await asyncio.gather(*(batches.encode(picture) for _ in range(batches.overlap)))
    times = kept.read()
    if times is None:
        return None
    alone = await round_seconds(batches.encode, picture, 1)
    if times[1] > _NOT_HERE * alone:
        log.warning("kept times of batches are left out: they are not this machine's")
        return None
    log.info("times of batches are those of an earlier start; they are measured again when idle")
    return times


async def measure_batches(batches: Batches) -> dict[int, float]:
    """Seconds of a batch by its size.

    Where several overlap, it is the time from the end of one to the end of the next. Raises what
    the encoder raises.
    """
    encode, overlap, picture = batches.encode, batches.overlap, batches.picture
    end = time.perf_counter() + _SECONDS
    measured: dict[int, float] = {}
    # What is made for batches that run side by side is made now, not for the first that do.
    await round_seconds(encode, [picture], overlap)
    for size in batches.sizes():
        if measured and time.perf_counter() > end:
            break
        batch = [picture] * size
        # What happens only the first time is not measured, unless it takes long.
        first = await round_seconds(encode, batch, 1)
        repeats = _REPEATS if first < LONGEST_SECONDS else 1
        # The least: whatever else the machine does can only make it look slower.
        rounds = [await round_seconds(encode, batch, overlap) for _ in range(repeats)]
        measured[size] = min((seconds for seconds in rounds if seconds > 0), default=first)
        if not batches.pays(measured):
            break
    log.info("images a second by batch: %s", rates(measured))
    return measured


def rates(measured: dict[int, float]) -> str:
    """Images a second by batch size, for people."""
    return ", ".join(f"{size}: {size / max(s, 1e-9):.3g}" for size, s in sorted(measured.items()))


async def round_seconds(
    encode: Encode,
    batch: Sequence[bytes],
    overlap: int,
    go_on: Callable[[], bool] = lambda: True,
) -> float:
    """Seconds from the end of one batch to the end of the next, with `overlap` at once.

    No further batch is begun once `go_on` is False, and the result means nothing then.
    """

    async def lane(count: int) -> list[float]:
        times = [time.perf_counter()]
        for _ in range(count):
            if go_on():
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


def _pays(measured: dict[int, float], overlap: int) -> bool:
    *_, last = measured.items()
    size, seconds = last
    if 2 * seconds * overlap > LONGEST_SECONDS:
        return False
    if size < _SURELY:
        return True
    before = [took / other for other, took in measured.items() if other <= size // 4]
    return not before or _NO_GAIN * seconds / size < min(before)
