"""Decoding in processes: what goes wrong with one image costs one image."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from inference.decoder_pool import DecoderPool
from inference.errors import Reason, ScoringError
from tests.e2e.processes import children, wait_until
from tests.inference.test_decoding import SQUASH, drawing, encoded

GOOD = encoded(drawing())
# Seconds of work: noise does not compress, and PNG filters every row.
SLOW = encoded(Image.effect_noise((6000, 6000), 100).convert("RGB"), compress_level=1)


def cpu_ticks(pid: int) -> int:
    """Processor time that a process has used, in hundredths of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    decoders = DecoderPool(1, SQUASH, 40_000_000, max_seconds=0.3)
    await decoders.start()
    yield decoders
    decoders.close()


def worker_pids() -> list[int]:
    return [pid for pid, line in children(os.getpid()).items() if "spawn_main" in line]


async def test_images_and_errors_come_back_from_the_workers(pool: DecoderPool) -> None:
    media = await pool.decode(GOOD, "image/png")
    assert (media.width, media.height) == (200, 120)
    with pytest.raises(ScoringError) as caught:
        await pool.decode(GOOD, "image/jpeg")
    assert caught.value.reason is Reason.TYPE_MISMATCH
    assert "declared as image/jpeg" in caught.value.message


async def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_decoded(
    pool: DecoderPool,
) -> None:
    with pytest.raises(ScoringError) as caught:
        await pool.decode(SLOW, "")
    assert caught.value.reason is Reason.DECODER_TIMEOUT
    assert (await pool.decode(GOOD, "")).views


async def test_a_worker_that_dies_costs_its_image_only() -> None:
    decoders = DecoderPool(1, SQUASH, 40_000_000, max_seconds=60)
    await decoders.start()
    try:
        [worker] = worker_pids()
        idle = cpu_ticks(worker)
        slow = asyncio.create_task(decoders.decode(SLOW, ""))
        waiting = asyncio.create_task(decoders.decode(GOOD, ""))
        await asyncio.to_thread(
            wait_until, lambda: cpu_ticks(worker) > idle + 10, "the worker's work", 30
        )
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ScoringError) as caught:
            await slow
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert (await waiting).views
    finally:
        decoders.close()


async def test_a_worker_that_dies_while_it_is_idle_costs_nothing() -> None:
    decoders = DecoderPool(2, SQUASH, 40_000_000, max_seconds=60)
    await decoders.start()
    for _ in range(3):
        os.kill(worker_pids()[-1], signal.SIGKILL)
        for _ in range(4):
            assert (await decoders.decode(GOOD, "")).views
    assert len(worker_pids()) <= 2, "no worker of a given-up pool is left"
    decoders.close()
    assert worker_pids() == []


async def test_a_cancelled_caller_leaves_the_workers_alone(pool: DecoderPool) -> None:
    before = worker_pids()
    tasks = [asyncio.create_task(pool.decode(GOOD, "")) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in done) == 10
    assert (await pool.decode(GOOD, "")).views
    assert worker_pids() == before
