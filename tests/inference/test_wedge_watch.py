"""A pass that does not come back is told from one that takes its time."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from inference.backends.tower import Picture
from inference.encoder import Embeddings, EncoderThread
from inference.wedge_watch import WedgeWatch, wedged_after


def test_the_largest_batch_may_take_its_time() -> None:
    assert wedged_after(60.0, 0.5) == 60.0
    assert wedged_after(60.0, 30.0) == 600.0


async def test_what_is_announced() -> None:
    seconds = 0.0
    announced: asyncio.Queue[bool] = asyncio.Queue()
    watch = WedgeWatch(lambda: seconds, 0.02, announced.put)
    watch.start()
    for _ in range(2):  # and again
        seconds = 0.02
        assert await asyncio.wait_for(announced.get(), 10) is True
        seconds = 0.01
        assert await asyncio.wait_for(announced.get(), 10) is False
    await watch.close()
    assert announced.empty()


async def test_other_threads_are_told_though_the_event_loop_is_stuck() -> None:
    now = seconds = 0.0
    announced: asyncio.Queue[bool] = asyncio.Queue()
    watch = WedgeWatch(lambda: seconds, 60.0, announced.put, lambda: now)
    watch.start()
    now = 59.0  # and the loop had no turn
    assert watch.objection() is None
    assert watch.objection(5.0) == "the event loop has not come back for 59 s"
    now = 60.0
    assert watch.objection() == "the event loop has not come back for 60 s"
    seconds = 60.0
    assert watch.objection() == "the device does not come back"
    assert announced.empty()
    await watch.close()


async def test_the_event_loop_shows_that_it_is_there() -> None:
    now = seconds = 0.0
    announced: asyncio.Queue[bool] = asyncio.Queue()
    watch = WedgeWatch(lambda: seconds, 0.02, announced.put, lambda: now)
    watch.start()
    now = 100.0
    assert watch.objection(5.0)
    seconds = 1.0
    await asyncio.wait_for(announced.get(), 10)  # it has looked when it tells of this
    seconds = 0.0
    assert watch.objection(5.0) is None
    await watch.close()


class Stuck:
    """An encoder that comes back when it is told to."""

    description, concurrency = None, 1

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()

    def encode_images(self, pictures: Sequence[Picture]) -> Embeddings:
        self.began.set()
        self.go.wait(60)
        return np.ones((len(pictures), 1), np.float32)

    encode_texts = encode_images

    def close(self) -> None:
        pass


@pytest.mark.parametrize("texts", [True, False])
async def test_a_thread_knows_for_how_long_its_call_runs(texts: bool) -> None:
    encoder, busy = Stuck(), list[bool]()
    thread = EncoderThread(encoder, on_busy=busy.append)  # type: ignore[arg-type]
    assert thread.running_for() == 0
    encode = thread.encode_texts if texts else thread.encode_images
    call = asyncio.create_task(encode([b""]))  # type: ignore[list-item]
    await asyncio.to_thread(encoder.began.wait, 60)
    assert 0 < thread.running_for() < 60
    assert not await thread.close(0.0)
    encoder.go.set()
    await call
    assert thread.running_for() == 0
    assert busy == [True, False]
    assert await thread.close(10.0)


async def test_a_pass_may_take_longer_once_batches_are_known_to() -> None:
    now, seconds = 0.0, 70.0
    announced: asyncio.Queue[bool] = asyncio.Queue()
    watch = WedgeWatch(lambda: seconds, 60.0, announced.put, lambda: now)
    assert watch.objection() == "the device does not come back"
    watch.allow(wedged_after(60.0, 5.0))
    assert watch.objection() is None
    seconds = 100.0
    assert watch.objection() == "the device does not come back"
