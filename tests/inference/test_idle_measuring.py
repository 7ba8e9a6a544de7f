"""Batches are measured again while nothing else is to be done, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from inference import warm_up
from inference.batch_times import worthwhile_size
from inference.encoder import Embeddings
from inference.idle_measuring import IdleMeasuring, Pauses
from inference.warm_up import Batches
from tests.inference.virtual_time import VirtualLoop, run

LANES = 2
NOISY = {1: 0.01, 2: 0.5}  # measured beside something else: the best batch seems to be 1
CALM = {1: 0.008, 2: 0.010, 4: 0.016, 8: 0.030, 16: 0.060}


def calm(size: int) -> float:
    """Seconds of a batch of the device alone."""
    return 0.004 + 0.0035 * size


@dataclass
class Pass:
    """A forward pass of the measurement."""

    size: int
    began: float
    ended: float = 0.0


@dataclass
class Device:
    """Runs passes in lanes that share it, each as long as `seconds` says; counts images."""

    loop: VirtualLoop
    seconds: Callable[[int], float] = calm
    passes: list[Pass] = field(default_factory=list)
    images: int = 0
    moves: int = 0
    lanes: int = LANES
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def encode(self, pictures: Sequence[bytes]) -> Embeddings:
        now = Pass(len(pictures), self.loop.time())
        self.passes.append(now)
        self.began.set()
        await asyncio.sleep(self.lanes * self.seconds(now.size))
        now.ended = self.loop.time()
        return np.ones((now.size, 2), np.float32)

    async def upload(self, seconds: float) -> None:
        """An image is in the service for a while."""
        self.moves += 1
        self.images += 1
        await asyncio.sleep(seconds)
        self.images -= 1
        self.moves += 1


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> VirtualLoop:
    loop = VirtualLoop()
    monkeypatch.setattr(warm_up, "time", loop)
    return loop


def measured_again(
    loop: VirtualLoop,
    device: Device,
    times: dict[int, float],
    max_batch: int | None = None,
    beside: Coroutine[Any, Any, None] | None = None,
) -> list[dict[int, float]]:
    """The tables that took the place of `times`, one after the other."""
    replaced: list[dict[int, float]] = []

    async def main() -> None:
        batches = Batches(device.encode, 12, max_batch, device.lanes)
        measuring = IdleMeasuring(batches, device, Pauses())
        other = asyncio.create_task(beside) if beside else None
        await measuring.run(times, replaced.append)
        if other:
            await other

    run(main(), loop)
    return replaced


def test_a_noisy_measurement_does_not_stay(loop: VirtualLoop) -> None:
    device = Device(loop)
    assert worthwhile_size(NOISY, LANES) == 1
    (times,) = measured_again(loop, device, NOISY)
    assert worthwhile_size(times, LANES) >= 8
    assert times[1] == pytest.approx(calm(1))
    assert times[2] == pytest.approx(calm(2))


def test_a_calm_one_stays_as_it_is(loop: VirtualLoop) -> None:
    """Also where something else is busy while it is measured again."""
    (*_, times) = measured_again(loop, Device(loop, lambda size: 1.6 * calm(size)), CALM)
    assert times == pytest.approx(CALM)


def test_one_of_quite_another_machine_goes(loop: VirtualLoop) -> None:
    (times,) = measured_again(loop, Device(loop), {1: 1e-6, 2: 1e-6, 64: 500.0, 256: 1e-5})
    assert times == pytest.approx({size: calm(size) for size in times})
    assert worthwhile_size(times, LANES) <= 32


def test_larger_ones_than_are_tried_while_idle_stay_if_they_fit(loop: VirtualLoop) -> None:
    slow = Device(loop, lambda size: 0.02 * size)
    (times,) = measured_again(loop, slow, {1: 0.03, 2: 0.05, 4: 0.09, 8: 0.17, 16: 0.32, 32: 9.0})
    assert max(one.size for one in slow.passes) <= 4
    assert set(times) == {1, 2, 4, 8, 16}
    assert worthwhile_size(times, LANES) == 16


def test_what_is_configured_is_measured_and_no_more(loop: VirtualLoop) -> None:
    device = Device(loop)
    (times,) = measured_again(loop, device, {1: 1.0, 2: 1.0, 4: 1.0, 5: 1.0}, max_batch=5)
    assert times == pytest.approx({size: calm(size) for size in (1, 2, 4, 5)})


def test_no_step_keeps_an_upload_waiting_long(loop: VirtualLoop) -> None:
    device = Device(loop, lambda size: 0.001 + 0.015 * size)
    measured_again(loop, device, NOISY)
    assert max(one.ended - one.began for one in device.passes) <= 0.25
    began = [one.began for one in device.passes]
    assert max(began.count(time) for time in began) <= LANES


def test_a_slow_model_is_measured_with_one_picture(loop: VirtualLoop) -> None:
    device = Device(loop, lambda size: 0.4 * size)
    (times,) = measured_again(loop, device, {1: 3.0})
    assert {one.size for one in device.passes} == {1}
    assert times == pytest.approx({1: 0.4})


def test_nothing_is_measured_while_images_come(loop: VirtualLoop) -> None:
    device = Device(loop)
    last = 0.0

    async def uploads() -> None:
        nonlocal last
        for _ in range(200):  # one a second, each answered in half of that
            await device.upload(0.5)
            last = loop.time()
            await asyncio.sleep(0.5)

    measured_again(loop, device, NOISY, beside=uploads())
    assert device.passes
    assert min(one.began for one in device.passes) >= last + 2.0


def test_nor_while_one_takes_long(loop: VirtualLoop) -> None:
    device = Device(loop)
    begun = loop.time()
    measured_again(loop, device, NOISY, beside=device.upload(300.0))
    assert min(one.began for one in device.passes) >= begun + 300.0 + 2.0


def test_gaps_between_uploads_are_enough(loop: VirtualLoop) -> None:
    device = Device(loop)

    async def uploads() -> None:
        for _ in range(400):
            await asyncio.sleep(3.3)
            await device.upload(0.05)

    (*_, times) = measured_again(loop, device, NOISY, beside=uploads())
    assert worthwhile_size(times, LANES) >= 8


def test_an_upload_waits_for_one_pass_at_most_and_its_step_does_not_count(
    loop: VirtualLoop,
) -> None:
    device = Device(loop)
    came = 0.0

    async def upload() -> None:
        nonlocal came
        await device.began.wait()
        came = loop.time()
        device.seconds = lambda size: 10 * calm(size)  # what is measured beside it is wrong
        await device.upload(1.0)
        device.seconds = calm

    (times,) = measured_again(loop, device, NOISY, beside=upload())
    after = [one.began for one in device.passes if one.began > came]
    assert min(after) >= came + 1.0 + 2.0
    assert times[1] == pytest.approx(calm(1))


def test_what_is_disturbed_is_measured_again_later(loop: VirtualLoop) -> None:
    begun, number = loop.time(), 0

    def busy(size: int) -> float:
        nonlocal number
        number += 1
        return calm(size) * (3 + number % 7 if loop.time() < begun + 50 else 1)

    first, *_, last = measured_again(loop, Device(loop, busy), NOISY)
    assert last[8] == pytest.approx(calm(8))
    assert first[2] > 1.2 * last[2]


def test_a_machine_that_never_rests_is_left_alone_after_a_while(loop: VirtualLoop) -> None:
    number = 0

    def busy(size: int) -> float:
        nonlocal number
        number += 1
        return calm(size) * 1.7 ** (number % 5)

    replaced = measured_again(loop, Device(loop, busy), NOISY)
    assert 1 < len(replaced) < 10


def test_what_the_encoder_raises_is_raised(loop: VirtualLoop) -> None:
    def fails(size: int) -> float:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        measured_again(loop, Device(loop, fails), NOISY)


def test_a_device_without_a_measurable_time(loop: VirtualLoop) -> None:
    (times,) = measured_again(loop, Device(loop, lambda size: 0.0), {1: 0.0, 8: 0.0}, max_batch=8)
    assert set(times) == {1, 2, 4, 8}
