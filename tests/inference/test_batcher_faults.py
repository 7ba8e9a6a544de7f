"""An encoder that fails: only the image at fault does, and everybody is answered."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from inference.batcher import EncoderFailedError
from inference.decoder.protocol import BrokenReplyError
from inference.encoder import Embeddings
from tests.inference.test_batcher import Start, start

__all__ = ["start"]

GUILTY = 7


def raises(numbers: list[int], rows: Embeddings) -> Embeddings:
    if GUILTY in numbers:
        raise RuntimeError("out of memory")
    return rows


def gives_nan(numbers: list[int], rows: Embeddings) -> Embeddings:
    rows[np.array(numbers) == GUILTY, 1] = np.nan
    return rows


def gives_infinity(numbers: list[int], rows: Embeddings) -> Embeddings:
    rows[np.array(numbers) == GUILTY, 0] = np.inf
    return rows


def loses_a_row(numbers: list[int], rows: Embeddings) -> Embeddings:
    return rows[:-1] if GUILTY in numbers else rows


def gives_nothing(numbers: list[int], rows: Embeddings) -> Embeddings:
    return None if GUILTY in numbers else rows  # type: ignore[return-value]


FAULTS = [raises, gives_nan, gives_infinity, loses_a_row, gives_nothing]


@pytest.mark.parametrize("fault", FAULTS)
async def test_only_the_guilty_image_fails(fault: object, start: Start) -> None:
    bench = await start(max_batch=8, max_queue=100)
    bench.device.fault = fault  # type: ignore[assignment]
    tasks = [await bench.occupied()]
    tasks += [bench.submit(number, number + 10) for number in range(1, 12)]
    await asyncio.sleep(0)
    bench.device.free.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ends.pop(GUILTY), EncoderFailedError)
    assert ends == [[0], *([2 * n, 2 * n + 20] for n in range(1, 12) if n != GUILTY)]
    assert bench.health.said.count(False) == 1
    assert bench.health.said.count(True) == 11
    assert await bench.submit(1) == [2]


async def test_a_batch_that_raises_is_tried_in_halves(start: Start) -> None:
    bench = await start(max_batch=8, max_queue=100)
    bench.device.fault = raises
    bench.device.free.set()
    ends = await asyncio.gather(*map(bench.submit, range(8)), return_exceptions=True)
    assert [isinstance(end, EncoderFailedError) for end in ends] == [n == GUILTY for n in range(8)]
    sizes = [len(batch) for batch in bench.device.batches]
    assert (sizes[0], sorted(sizes[1:])) == (8, [1, 1, 2, 2, 4, 4])


async def test_a_row_that_is_not_finite_costs_one_pass_more(start: Start) -> None:
    bench = await start(max_batch=8, max_queue=100)
    bench.device.fault = gives_nan
    bench.device.free.set()
    await asyncio.gather(*map(bench.submit, range(8)), return_exceptions=True)
    assert bench.device.batches == [[0, 1, 2, 3, 4, 5, 6, 7], [GUILTY]]


async def test_what_fails_once_in_a_batch_and_then_does_not_is_nobodys_fault(start: Start) -> None:
    bench = await start()
    bench.device.free.set()
    bench.device.fault = lambda numbers, rows: rows[:0] if len(numbers) == 4 else rows
    assert await asyncio.gather(*map(bench.submit, range(4))) == [[0], [2], [4], [6]]
    assert bench.health.said == [True] * 4


async def test_a_device_that_always_fails_answers_everybody(start: Start) -> None:
    bench = await start(max_batch=4, max_queue=100)
    bench.device.fault = lambda numbers, rows: rows * np.nan
    bench.device.free.set()
    ends = await asyncio.gather(
        *(bench.submit(*range(1 + n % 6)) for n in range(30)), return_exceptions=True
    )
    assert all(isinstance(end, EncoderFailedError) for end in ends)
    assert bench.health.said == [False] * 30


async def test_the_callers_of_a_batch_that_failed_may_leave(start: Start) -> None:
    bench = await start(max_batch=4)
    bench.device.fault = raises
    tasks = [bench.submit(number) for number in (5, 6, GUILTY, 8)]
    await bench.device.began.wait()
    for task in (tasks[0], tasks[2]):
        task.cancel()
    await asyncio.sleep(0)
    bench.device.free.set()
    assert (await tasks[1], await tasks[3]) == ([12], [16])
    assert bench.health.said == [True, True]


class Unreadable(Sequence[bytes]):
    """Views of a decoder that was taken over: the second one can't be read."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if index == 1:
            raise BrokenReplyError("a view is missing")
        return bytes([40 + index])


async def test_an_image_with_a_view_that_can_not_be_read_fails_alone(start: Start) -> None:
    bench = await start(max_batch=8, max_queue=100)
    tasks = [await bench.occupied()]
    tasks += [bench.submit(1), bench.submit(pictures=Unreadable()), bench.submit(2)]
    await asyncio.sleep(0)
    bench.device.free.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ends.pop(2), EncoderFailedError)
    assert ends == [[0], [2], [4]]


async def test_an_unreadable_view_costs_no_pass(start: Start) -> None:
    bench = await start(max_batch=1)
    bench.device.free.set()
    with pytest.raises(EncoderFailedError):
        await bench.submit(pictures=Unreadable())
    assert bench.device.batches == [[40]]  # and no batch of nothing
