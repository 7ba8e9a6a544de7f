"""A device that fails is told from pictures that make it fail."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from inference import device_health
from inference.device_health import DeviceHealth
from inference.encoder import Embeddings
from inference.serving_status import Trouble

FAILS, WORKS = (Trouble.DEVICE_FAILS, True), (Trouble.DEVICE_FAILS, False)


class Device:
    """Works or does not, and tells when it was tried and what was announced of it."""

    def __init__(self) -> None:
        self.works: bool | None = True  # None: it gives NaN
        self.tries = 0
        self.tried = asyncio.Event()
        self.announced: asyncio.Queue[tuple[Trouble, bool]] = asyncio.Queue()
        self.health = DeviceHealth(self._encode, self._announce)

    async def _encode(self) -> Embeddings:
        self.tries += 1
        self.tried.set()
        if self.works is False:
            raise RuntimeError("out of memory")
        return np.full((1, 4), 1.0 if self.works else np.nan, np.float32)

    async def _announce(self, trouble: Trouble, holds: bool) -> None:
        await self.announced.put((trouble, holds))

    async def next_try(self) -> None:
        self.tried.clear()
        await asyncio.wait_for(self.tried.wait(), 10)
        for _ in range(5):  # what follows from it
            await asyncio.sleep(0)

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.health.failed()


@pytest.fixture
async def device(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Device]:
    monkeypatch.setattr(device_health, "_SECONDS", 0.001)
    fake = Device()
    yield fake
    await fake.health.close()


async def test_pictures_that_make_it_fail_do_not_take_it_out(device: Device) -> None:
    for _ in range(4):
        device.fail(10)
        await device.next_try()
    assert device.announced.empty()
    assert device.tries == 4  # one for each run of failures, not for each failure


async def test_a_failure_between_successes_is_not_looked_into(device: Device) -> None:
    for _ in range(10):
        device.fail(2)
        device.health.succeeded()
    await asyncio.sleep(0)
    assert device.tries == 0


@pytest.mark.parametrize("broken", [False, None])
async def test_a_device_that_fails_is_announced_until_it_works(
    device: Device, broken: bool | None
) -> None:
    for _ in range(2):  # and again
        device.works = broken
        device.fail(3)
        assert await device.announced.get() == FAILS
        device.fail(50)  # of callers that did not hear of it yet
        for _ in range(3):
            await device.next_try()
        assert device.announced.empty()
        device.works = True
        assert await device.announced.get() == WORKS
        assert device.announced.empty()


async def test_a_device_that_works_again_is_not_suspected_of_what_was_before(
    device: Device,
) -> None:
    device.works = False
    device.fail(3)
    assert await device.announced.get() == FAILS
    device.works = True
    assert await device.announced.get() == WORKS
    tries = device.tries
    device.fail(2)
    await asyncio.sleep(0)
    assert device.tries == tries


async def test_a_device_that_fails_for_long_is_lost_until_it_works(device: Device) -> None:
    device.works = False
    device.fail(3)
    assert await device.announced.get() == FAILS
    assert await device.announced.get() == (Trouble.DEVICE_LOST, True)
    assert device.tries == 12
    await device.next_try()
    assert device.announced.empty()
    device.works = True
    assert await device.announced.get() == (Trouble.DEVICE_LOST, False)
    assert await device.announced.get() == WORKS


async def test_closing_ends_the_tries(device: Device) -> None:
    await device.health.close()
    device.works = False
    device.fail(3)
    assert await device.announced.get() == FAILS
    await device.health.close()
    tries = device.tries
    await asyncio.sleep(0.01)
    assert device.tries == tries
