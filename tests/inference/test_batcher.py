"""The batcher: work-conserving, and no caller is left without an answer."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from inference.batcher import Batcher, DeadlinePassedError
from inference.work_queue import Priority, QueueFullError


class Device:
    """Doubles numbers; holds each batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()
        self.began = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.began.set()
        await self.free.wait()
        if -1 in items:
            raise RuntimeError("out of memory")
        return [2 * item for item in items]


def submit(
    batcher: Batcher[int, int],
    item: int,
    priority: Priority = Priority.INTERACTIVE,
    deadline: float = math.inf,
) -> asyncio.Task[int]:
    return asyncio.create_task(batcher.submit(item, priority=priority, deadline=deadline))


async def start(device: Device, max_batch: int = 4, max_queue: int = 8) -> Batcher[int, int]:
    batcher: Batcher[int, int] = Batcher(device, max_batch=max_batch, max_queue=max_queue)
    batcher.start()
    return batcher


async def test_a_free_device_takes_what_is_there_and_batches_grow_while_it_is_busy() -> None:
    device = Device()
    batcher = await start(device)
    tasks = [submit(batcher, 0)]
    await device.began.wait()
    tasks += [submit(batcher, number) for number in range(1, 7)]
    await asyncio.sleep(0)
    device.free.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10, 12]
    assert device.batches == [[0], [1, 2, 3, 4], [5, 6]]
    await batcher.close()


async def test_interactive_before_bulk_and_the_earliest_deadline_first() -> None:
    device = Device()
    batcher = await start(device, max_batch=1)
    tasks = [submit(batcher, 0)]
    await device.began.wait()
    later = asyncio.get_running_loop().time() + 100
    tasks += [submit(batcher, 1, Priority.BULK, later), submit(batcher, 2, deadline=later + 1)]
    tasks += [submit(batcher, 3, deadline=later)]
    await asyncio.sleep(0)
    device.free.set()
    await asyncio.gather(*tasks)
    assert device.batches == [[0], [3], [2], [1]]
    await batcher.close()


async def test_what_is_cancelled_or_late_costs_no_forward_pass() -> None:
    device = Device()
    batcher = await start(device)
    first = submit(batcher, 0)
    await device.began.wait()
    cancelled, late = submit(batcher, 1), submit(batcher, 2, deadline=0)
    kept = submit(batcher, 3)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    device.free.set()
    assert [await first, await kept] == [0, 6]
    with pytest.raises(DeadlinePassedError):
        await late
    assert device.batches == [[0], [3]]
    await batcher.close()


async def test_a_full_queue_refuses_at_once() -> None:
    device = Device()
    batcher = await start(device, max_queue=2)
    tasks = [submit(batcher, 0)]
    await device.began.wait()
    tasks += [submit(batcher, 1), submit(batcher, 2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await batcher.submit(3, priority=Priority.INTERACTIVE, deadline=math.inf)
    device.free.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]
    await batcher.close()


async def test_a_batch_that_fails_is_answered_and_the_next_one_runs() -> None:
    device = Device()
    device.free.set()
    batcher = await start(device)
    with pytest.raises(RuntimeError, match="out of memory"):
        await batcher.submit(-1, priority=Priority.INTERACTIVE, deadline=math.inf)
    assert await batcher.submit(1, priority=Priority.INTERACTIVE, deadline=math.inf) == 2
    await batcher.close()
