"""When uploads come: at a steady rate whatever becomes of them, or as they are answered."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

from benchmarks.rehearsal.history import Answered
from benchmarks.rehearsal.uploads import Uploader
from benchmarks.serving.measuring import closed_loop
from benchmarks.serving.processes import BenchmarkError


@contextlib.asynccontextmanager
async def steady(
    client: Uploader, rate: float, *, hang_ups: float = 0.0, seed: int = 1
) -> AsyncIterator[None]:
    """Poisson arrivals, `rate` a second, while the block runs; then waits for the answers.

    A share `hang_ups` of them leaves in the middle.
    """
    chance = random.Random(seed)  # noqa: S311
    stop = asyncio.Event()

    async def arrive(group: asyncio.TaskGroup) -> None:
        due = time.monotonic()
        while not stop.is_set():
            due += chance.expovariate(rate)
            await asyncio.sleep(due - time.monotonic())
            leaves = chance.random() < hang_ups
            group.create_task(client.hang_up() if leaves else _post(client, due))

    async with asyncio.TaskGroup() as group:
        arriving = group.create_task(arrive(group))
        try:
            yield
        except BaseException:
            arriving.cancel()
            raise
        stop.set()


async def _post(client: Uploader, due: float) -> None:
    await client.post(due)


async def capacity(client: Uploader, concurrency: int, seconds: float) -> float:
    """Scored answers a second with so many uploads at once, measured once each had an answer.

    Raises an ExceptionGroup with BenchmarkError for an upload that is not scored.
    """

    async def call(_: int) -> None:
        answer = await client.post()
        if not isinstance(answer, Answered) or answer.cause != "policy":
            raise BenchmarkError(f"no capacity can be measured: {answer}")

    return (await closed_loop(call, concurrency, seconds)).images_per_second


async def one_by_one(client: Uploader, rate: float, seconds: float) -> list[float]:
    """Latencies in seconds of uploads that come one after the other, at most `rate` a second."""
    taken = []
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        answer = await client.post()
        taken.append(answer.at - start)
        await asyncio.sleep(start + 1 / rate - time.monotonic())
    return sorted(taken)
