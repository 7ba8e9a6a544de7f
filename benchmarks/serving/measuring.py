"""How load is put on something, and what is counted: closed loop, open loop, all at once."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Call = Callable[[int], Awaitable[None]]
"""Sends the file of this number; raises unless the answer is a good one."""


@dataclass(frozen=True)
class Measurement:
    """What one measurement found. `calls` are all that were made, those of the warm-up too."""

    images_per_second: float
    p50_ms: float
    p99_ms: float
    images: int
    calls: int


@dataclass(frozen=True)
class _Answered:
    start: float
    end: float


async def closed_loop(call: Call, concurrency: int, seconds: float) -> Measurement:
    """Keeps `concurrency` calls in flight, measures for `seconds` once each place had an answer.

    A call counts with the part of its time that is in the window, so that it does not matter
    whether a batch was answered just before or just after the window's end. The load goes on until
    the last call that is in the window is answered.
    """
    numbers = itertools.count()
    answered: list[_Answered] = []
    warm = asyncio.Semaphore(0)
    over, stop = asyncio.Event(), asyncio.Event()
    late = asyncio.Semaphore(0)

    async def place() -> None:
        first, in_window = True, True
        while not stop.is_set():
            start = time.perf_counter()
            await call(next(numbers))
            answered.append(_Answered(start, time.perf_counter()))
            if first:
                warm.release()
                first = False
            if in_window and over.is_set():
                late.release()
                in_window = False

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(place())
        for _ in range(concurrency):
            await warm.acquire()
        begin = time.perf_counter()
        await asyncio.sleep(seconds)
        end = time.perf_counter()
        over.set()
        for _ in range(concurrency):
            await late.acquire()
        stop.set()
    images = sum(_share(one, begin, end) for one in answered)
    inside = [one.end - one.start for one in answered if begin <= one.end <= end]
    if not inside:  # one call takes longer than the window
        inside = [one.end - one.start for one in answered if one.end >= begin]
    return _measurement(images / (end - begin), inside, len(answered))


def _share(one: _Answered, begin: float, end: float) -> float:
    inside = min(one.end, end) - max(one.start, begin)
    return max(0.0, inside) / (one.end - one.start)


async def open_loop(call: Call, rate: float, seconds: float, seed: int) -> Measurement:
    """Poisson arrivals, `rate` a second: a call comes when it comes, however many there are.

    The time of a call runs from when it was due.
    """
    chance = random.Random(seed)  # noqa: S311
    answered: list[_Answered] = []

    async def one(number: int, due: float) -> None:
        await call(number)
        answered.append(_Answered(due, time.perf_counter()))

    begin = due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            due += chance.expovariate(rate)
            if due - begin > seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(number, due))
    took = [one.end - one.start for one in answered]
    return _measurement(len(answered) / seconds, took, len(answered))


async def all_at_once(call: Call, count: int) -> Measurement:
    """So many calls in flight at once."""
    begin = time.perf_counter()
    took: list[float] = []

    async def one(number: int) -> None:
        await call(number)
        took.append(time.perf_counter() - begin)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))
    return _measurement(count / max(took), took, count)


def _measurement(rate: float, took: Sequence[float], calls: int) -> Measurement:
    ordered = sorted(took)
    return Measurement(
        images_per_second=rate,
        p50_ms=quantile(ordered, 0.5) * 1000,
        p99_ms=quantile(ordered, 0.99) * 1000,
        images=len(ordered),
        calls=calls,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the ordered values is at or under."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
