"""The batcher: work-conserving, and no caller is left without an answer."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import numpy as np
import pytest

from inference.batch_schedule import DeadlineUnmeetableError, Schedule, ScheduleLimits
from inference.batch_times import BatchTimes
from inference.batcher import Batcher
from inference.encoder import Embeddings
from inference.metrics import Metrics
from inference.work_queue import Priority, QueueFullError


class Device:
    """Embeds a picture as twice its first byte; holds each batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()
        self.began = asyncio.Event()
        self.fault: Callable[[list[int], Embeddings], Embeddings] = lambda _, rows: rows

    async def __call__(self, pictures: Sequence[bytes]) -> Embeddings:
        numbers = [picture[0] for picture in pictures]
        self.batches.append(numbers)
        self.began.set()
        await self.free.wait()
        return self.fault(numbers, np.array([[2 * n, 1] for n in numbers], np.float32))


class Health:
    """Counts what the batcher says of the device."""

    def __init__(self) -> None:
        self.said: list[bool] = []

    def succeeded(self) -> None:
        self.said.append(True)

    def failed(self) -> None:
        self.said.append(False)


class Bench:
    """A batcher with a device of ours; pictures are single bytes."""

    def __init__(self, limits: ScheduleLimits, times: dict[int, float]) -> None:
        self.device, self.health = Device(), Health()
        schedule = Schedule(BatchTimes(times), limits)
        self.metrics = Metrics()
        self.batcher = Batcher(self.device, schedule, self.health, self.metrics)  # type: ignore[arg-type]

    def submit(
        self,
        *numbers: int,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float = math.inf,
        pictures: Sequence[bytes] | None = None,
    ) -> asyncio.Task[list[float]]:
        """A caller with an image of these views."""

        async def call() -> list[float]:
            views = pictures or [bytes([number]) for number in numbers]
            rows = await self.batcher.submit(views, priority=priority, deadline=deadline)
            return [float(row[0]) for row in rows]

        return asyncio.create_task(call())

    async def occupied(self) -> asyncio.Task[list[float]]:
        """A caller whose batch the device holds."""
        first = self.submit(0)
        await self.device.began.wait()
        return first


Start = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with contextlib.AsyncExitStack() as stack:

        async def start_bench(
            max_batch: int = 4, max_queue: int = 8, seconds: float = 0.0, **limits: float
        ) -> Bench:
            sizes = {size: seconds * size for size in range(1, max_batch + 1)}
            bench = Bench(ScheduleLimits(max_batch, max_queue, **limits), sizes)  # type: ignore[arg-type]
            stack.push_async_callback(bench.batcher.close)
            return bench

        yield start_bench


async def test_a_free_device_takes_what_is_there_and_batches_grow_while_it_is_busy(
    start: Start,
) -> None:
    bench = await start()
    tasks = [await bench.occupied()]
    tasks += [bench.submit(number) for number in range(1, 7)]
    await asyncio.sleep(0)
    bench.device.free.set()
    assert await asyncio.gather(*tasks) == [[0], [2], [4], [6], [8], [10], [12]]
    assert bench.device.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert bench.health.said == [True] * 7


async def test_what_comes_in_one_turn_of_the_loop_goes_together(start: Start) -> None:
    bench = await start()
    bench.device.free.set()
    await asyncio.gather(*(bench.submit(number) for number in range(4)))
    assert bench.device.batches == [[0, 1, 2, 3]]


async def test_two_batches_are_with_a_device_that_takes_two(start: Start) -> None:
    bench = await start(max_batch=1, overlap=2)
    tasks = [bench.submit(number) for number in range(4)]
    await bench.device.began.wait()
    await asyncio.sleep(0)
    assert bench.device.batches == [[0], [1]]
    bench.device.free.set()
    assert await asyncio.gather(*tasks) == [[0], [2], [4], [6]]


async def test_a_batch_that_waits_to_fill_goes_when_its_time_is_up(start: Start) -> None:
    bench = await start(max_batch=3, max_delay=0.01)
    bench.device.free.set()
    assert await bench.submit(1) == [2]
    slow = await start(max_batch=3, max_delay=3600.0)
    slow.device.free.set()
    tasks = [slow.submit(1), slow.submit(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert slow.device.batches == []
    tasks.append(slow.submit(3))
    assert await asyncio.gather(*tasks) == [[2], [4], [6]]


async def test_interactive_before_bulk_and_the_earliest_deadline_first(start: Start) -> None:
    bench = await start(max_batch=1)
    tasks = [await bench.occupied()]
    later = asyncio.get_running_loop().time() + 100
    tasks += [bench.submit(1, priority=Priority.BULK, deadline=later)]
    tasks += [bench.submit(2, deadline=later + 1), bench.submit(3, deadline=later)]
    await asyncio.sleep(0)
    bench.device.free.set()
    await asyncio.gather(*tasks)
    assert bench.device.batches == [[0], [3], [2], [1]]


async def test_what_is_cancelled_or_late_costs_no_forward_pass(start: Start) -> None:
    bench = await start()
    first = await bench.occupied()
    cancelled, late, kept = bench.submit(1, 2), bench.submit(3, deadline=0), bench.submit(4)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    bench.device.free.set()
    assert [await first, await kept] == [[0], [8]]
    with pytest.raises(DeadlineUnmeetableError):
        await late
    assert bench.device.batches == [[0], [4]]


async def test_what_is_cancelled_while_it_is_encoded_is_nobodys(start: Start) -> None:
    bench = await start()
    first = await bench.occupied()
    kept = bench.submit(1)
    first.cancel()
    await asyncio.sleep(0)
    bench.device.free.set()
    assert await kept == [2]
    assert first.cancelled()


async def test_what_the_device_can_not_do_in_time_is_refused_before_it_tries(start: Start) -> None:
    bench = await start(max_batch=2, seconds=10.0)
    soon = asyncio.get_running_loop().time() + 25
    with pytest.raises(DeadlineUnmeetableError):
        await bench.submit(1, 2, 3, deadline=soon)
    assert bench.device.batches == []
    bench.device.free.set()
    assert await bench.submit(1, 2, deadline=soon) == [2, 4]


async def test_who_has_lost_his_turn_to_others_is_told_before_his_pass(start: Start) -> None:
    """The queue in front of a caller took longer than was known when he came."""
    bench = await start(max_batch=1, seconds=0.0)
    deadline = asyncio.get_running_loop().time() + 0.02
    first = await bench.occupied()
    late = bench.submit(1, deadline=deadline)
    await asyncio.sleep(0)
    passed = asyncio.Event()
    asyncio.get_running_loop().call_at(deadline, passed.set)
    await passed.wait()
    bench.device.free.set()
    with pytest.raises(DeadlineUnmeetableError):
        await late
    assert await first == [0]
    assert bench.device.batches == [[0]]


async def test_a_full_queue_refuses_at_once(start: Start) -> None:
    bench = await start(max_queue=2)
    tasks = [await bench.occupied()]
    tasks += [bench.submit(1), bench.submit(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await bench.submit(3)
    bench.device.free.set()
    assert await asyncio.gather(*tasks) == [[0], [2], [4]]
    assert await bench.submit(3) == [6]


async def test_bulk_work_waits_for_room_and_leaves_some_to_uploads(start: Start) -> None:
    bench = await start(max_batch=1, max_queue=4)
    first = await bench.occupied()
    bulk = [bench.submit(number, priority=Priority.BULK) for number in range(1, 7)]
    await asyncio.sleep(0)
    upload = bench.submit(7)
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await bench.submit(8)
    bulk.pop().cancel()
    bench.device.free.set()
    assert await asyncio.gather(first, upload, *bulk) == [[0], [14], [2], [4], [6], [8], [10]]
    assert bench.device.batches[1] == [7]
    assert len(bench.device.batches) == 7


async def test_bulk_work_does_not_wait_for_room_longer_than_it_may(start: Start) -> None:
    bench = await start(max_queue=1)
    first = await bench.occupied()
    waiting = bench.submit(1, priority=Priority.BULK)
    soon = asyncio.get_running_loop().time() + 0.02
    with pytest.raises(DeadlineUnmeetableError):
        await bench.submit(2, priority=Priority.BULK, deadline=soon)
    bench.device.free.set()
    assert [await first, await waiting] == [[0], [2]]


async def test_the_views_of_an_image_come_back_in_order_from_several_batches(start: Start) -> None:
    bench = await start(max_batch=3)
    bench.device.free.set()
    assert await bench.submit(*range(8)) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert [len(batch) for batch in bench.device.batches] == [3, 3, 2]
    assert bench.health.said == [True]


async def test_a_closed_batcher_runs_nothing_more(start: Start) -> None:
    bench = await start(max_batch=1)
    tasks = [await bench.occupied(), bench.submit(1)]
    await asyncio.sleep(0)
    await bench.batcher.close()
    await bench.batcher.close()
    bench.device.free.set()
    tasks.append(bench.submit(2))
    _, waiting = await asyncio.wait(tasks, timeout=0.01)
    assert len(waiting) == 3
    assert bench.device.batches == [[0]]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_thousand_callers_who_come_and_go_are_all_answered(start: Start) -> None:
    bench = await start(max_batch=8, max_queue=100)
    bench.device.free.set()
    now = asyncio.get_running_loop().time()
    tasks = []
    for number in range(1000):
        deadline = now + (number % 7) / 100 if number % 3 else math.inf
        views = [number % 250] * (1 + number % 5)
        tasks.append(bench.submit(*views, deadline=deadline))
        if number % 11 == 0:
            await asyncio.sleep(0)
        if number % 13 == 0:
            tasks[number // 2].cancel()
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    for number, end in enumerate(ends):
        allowed = (DeadlineUnmeetableError, QueueFullError, asyncio.CancelledError)
        assert end == [2 * (number % 250)] * (1 + number % 5) or isinstance(end, allowed)
    assert await bench.submit(5) == [10]


async def test_waits_are_counted_by_priority(start: Start) -> None:
    bench = await start()
    first = await bench.occupied()
    waiting = [bench.submit(number, priority=Priority.BULK) for number in (1, 2)]
    await asyncio.sleep(0)
    bench.device.free.set()
    await asyncio.gather(first, *waiting)
    name = "imagesafety_batch_wait_seconds_count"
    counts = {
        priority: bench.metrics.registry.get_sample_value(name, {"priority": priority})
        for priority in ("interactive", "bulk")
    }
    assert counts == {"interactive": 1, "bulk": 1}
