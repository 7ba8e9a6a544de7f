"""Decoding in processes: what goes wrong with one file costs one error."""

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from inference import decoder_pool, decoder_process
from inference.decoder.decode import Decoder
from inference.decoder.media import DecodedMedia, MediaLimits, Request
from inference.decoder.protocol import WorkerSettings
from inference.decoder_pool import DecoderPool, FilesAhead
from inference.decoder_process import DecoderStartError
from inference.errors import Reason, ScoringError
from inference.shared_file import SharedFile
from inference.work_queue import Priority
from tests.e2e.processes import is_alive, wait_until
from tests.inference.decoder.test_decode import SQUASH, drawing
from tests.inference.faulty_worker import HASHES
from tests.media import drawn, moving, still

GOOD = still(drawing())
MIB = 1024 * 1024
FAULTS = "tests.inference.faulty_worker"


@contextlib.asynccontextmanager
async def pool_of(
    workers: int = 1,
    *,
    seconds: float = 60,
    memory_bytes: int = 1024 * MIB,
    max_views: int = 512,
    max_queue: int = 512,
) -> AsyncIterator[DecoderPool]:
    limits = MediaLimits(max_pixels=40_000_000, max_frames=1000, max_seconds=600)
    settings = WorkerSettings(SQUASH, limits, memory_bytes, seconds, filtered=True)
    pool = DecoderPool(settings, workers=workers, max_queue=max_queue, max_views=max_views)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders that crash, hang and so on where a file tells them to."""
    monkeypatch.setattr(decoder_process, "WORKER_MODULE", FAULTS)


@contextlib.contextmanager
def shared(data: bytes) -> Iterator[SharedFile]:
    file = SharedFile("test")
    file.append(data)
    try:
        yield file
    finally:
        file.close()


async def decode(
    pool: DecoderPool,
    data: bytes,
    declared: str = "",
    *,
    max_frames: int = 16,
    hashes: bool = False,
) -> DecodedMedia:
    """Decodes a file, and holds its views no longer than it takes to copy them."""
    deadline = asyncio.get_running_loop().time() + 60
    request = Request(declared, max_frames, frame_seconds=60, hashes=hashes)
    with shared(data) as file:
        async with pool.decoded(file, request, priority=Priority.BULK, deadline=deadline) as media:
            return replace(media, pixels=tuple(media.pixels))


async def reason(pool: DecoderPool, data: bytes, *, hashes: bool = False) -> Reason:
    with pytest.raises(ScoringError) as caught:
        await decode(pool, data, hashes=hashes)
    return caught.value.reason


def entries(folder: str) -> int:
    return len(list(Path(folder).iterdir()))


async def test_images_and_errors_come_back_from_the_processes() -> None:
    async with pool_of() as pool:
        media = await decode(pool, GOOD, "image/png")
        assert (media.facts.width, media.facts.height) == (200, 140)
        assert [len(view) for view in media.pixels] == [64 * 64 * 3]
        with pytest.raises(ScoringError) as caught:
            await decode(pool, GOOD, "image/jpeg")
        assert caught.value.reason is Reason.TYPE_MISMATCH
        assert "declared as image/jpeg" in caught.value.message


async def test_many_views_come_back_in_order() -> None:
    """More than are copied at once: they are read from where the decoder put them."""
    frames = [drawn(seed=number, size=100) for number in range(150)]
    async with pool_of() as pool:
        data = moving(frames, "image/webp")
        media = await decode(pool, data, max_frames=0, hashes=True)
        again = await decode(pool, data, max_frames=0, hashes=True)
    assert [view.frame_index for view in media.views] == list(range(150))
    assert [found.frame_index for found in media.hashes] == list(range(150))
    assert sum(map(len, media.pixels)) > MIB
    assert media == again


async def test_one_process_decodes_any_number_of_videos() -> None:
    """FFmpeg's scaler once left a thread behind for each frame."""
    data = moving([drawn(seed=number, size=64) for number in range(30)], "video/mp4")
    async with pool_of(memory_bytes=256 * MIB) as pool:
        [pid] = pool.pids
        for _ in range(20):
            assert len((await decode(pool, data)).views) == 16
        assert pool.pids == {pid}
        assert entries(f"/proc/{pid}/task") == 1


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (b"crash", Reason.DECODER_CRASHED),
        (b"exit", Reason.DECODER_CRASHED),
        (b"spin", Reason.DECODER_TIMEOUT),
        (b"sleep", Reason.DECODER_TIMEOUT),
        (b"memory", Reason.DECODER_OUT_OF_MEMORY),
        (b"lie", Reason.DECODER_CRASHED),
        (b"views", Reason.DECODER_CRASHED),
        (b"none", Reason.DECODER_CRASHED),
        (b"raise", Reason.UNDECODABLE),
    ],
)
async def test_a_file_that_breaks_its_decoder_costs_one_error(
    fault: bytes, expected: Reason
) -> None:
    async with pool_of(2, seconds=3, memory_bytes=256 * MIB) as pool:
        answers = await asyncio.gather(
            *(decode(pool, GOOD) for _ in range(5)),
            reason(pool, b"fault:" + fault),
            *(decode(pool, GOOD) for _ in range(5)),
        )
        assert [answer for answer in answers if isinstance(answer, Reason)] == [expected]
        assert all(media.views for media in answers if isinstance(media, DecodedMedia))
        assert (await decode(pool, GOOD)).views


@pytest.mark.parametrize("size", [(200, 140), (1600, 1200)])
async def test_hashes_come_back_from_behind_the_fence(size: tuple[int, int]) -> None:
    data = still(drawing(*size), "image/jpeg")
    decoder = Decoder(SQUASH, MediaLimits(10**7, 1, 1), random.Random(0))
    async with pool_of() as pool:
        [found] = (await decode(pool, data, hashes=True)).hashes
        assert (await decode(pool, data)).hashes == ()
    assert (found,) == decoder.decode(data, Request("", 16, 60, hashes=True)).hashes


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("fault", [name for name in HASHES if name != "good-hash"])
async def test_hashes_that_are_not_as_agreed_are_the_end_of_the_decoder(fault: str) -> None:
    async with pool_of() as pool:
        [before] = pool.pids
        assert len((await decode(pool, b"fault:good-hash", hashes=True)).hashes) == 1
        assert before in pool.pids
        assert await reason(pool, f"fault:{fault}".encode(), hashes=True) is Reason.DECODER_CRASHED
        assert (await decode(pool, GOOD, hashes=True)).hashes
        assert before not in pool.pids
        assert await reason(pool, b"fault:good-hash") is Reason.DECODER_CRASHED


@pytest.mark.usefixtures("faults")
async def test_nothing_is_left_of_a_process_that_was_ended() -> None:
    async with pool_of(seconds=3) as pool:
        [before] = pool.pids
        await reason(pool, b"fault:sleep")
        assert (await decode(pool, GOOD)).views
        [after] = pool.pids
    assert before != after
    assert not is_alive(before)
    assert not is_alive(after)


async def test_a_process_that_dies_while_it_is_idle_costs_nothing() -> None:
    async with pool_of(2) as pool:
        for _ in range(5):
            os.kill(max(pool.pids), signal.SIGKILL)
            answers = await asyncio.gather(*(decode(pool, GOOD) for _ in range(4)))
            assert all(media.views for media in answers)
        assert len(pool.pids) <= 2


def has_unread(process: decoder_process.DecoderProcess) -> bool:
    """Whether it has a packet that it has not read yet (unix(7), SIOCOUTQ)."""
    return any(fcntl.ioctl(process._socket, termios.TIOCOUTQ, bytes(4)))


@pytest.mark.usefixtures("faults")
async def test_a_file_whose_decoders_are_killed_from_outside_is_not_at_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does it get a third one, in case that it is."""
    handed: asyncio.Queue[decoder_process.DecoderProcess] = asyncio.Queue()
    hand_over = decoder_process.DecoderProcess.hand_over

    def noted(process: decoder_process.DecoderProcess, file: SharedFile, request: Request) -> None:
        hand_over(process, file, request)
        handed.put_nowait(process)

    monkeypatch.setattr(decoder_process.DecoderProcess, "hand_over", noted)
    async with pool_of() as pool:
        answer = asyncio.create_task(reason(pool, b"fault:sleep"))
        async with asyncio.timeout(60):
            for _ in range(2):
                process = await handed.get()
                # What a process has not read when it is killed counts as never handed over.
                while has_unread(process):  # noqa: ASYNC110 - nothing tells but the socket
                    await asyncio.sleep(0.001)
                os.kill(process.pid, signal.SIGKILL)
            assert await answer is Reason.DECODER_KILLED
            assert handed.empty()
        assert (await decode(pool, GOOD)).views


async def test_a_file_that_a_dead_process_could_not_take_is_handed_over_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: list[int] = []
    hand_over = decoder_process.DecoderProcess.hand_over

    def counted(
        process: decoder_process.DecoderProcess, file: SharedFile, request: Request
    ) -> None:
        hand_over(process, file, request)
        handed.append(process.pid)

    monkeypatch.setattr(decoder_process.DecoderProcess, "hand_over", counted)
    async with pool_of(3) as pool:
        next_one = pool._idle[-1].pid
        os.kill(next_one, signal.SIGKILL)
        wait_until(lambda: not is_alive(next_one), "its death", 10)
        assert (await decode(pool, GOOD)).views
        assert len(handed) == 1


async def test_signals_to_the_whole_group_leave_the_decoders_to_the_service() -> None:
    """Ctrl-C and systemd's SIGTERM, after which the service finishes what it has begun."""
    async with pool_of() as pool:
        before = pool.pids
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(min(before), number)
            assert (await decode(pool, GOOD)).views
        assert pool.pids == before
        assert pool.count == 1


async def test_a_cancelled_caller_leaves_the_processes_alone() -> None:
    async with pool_of() as pool:
        before = pool.pids
        tasks = [asyncio.create_task(decode(pool, GOOD)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, asyncio.CancelledError) for result in done) == 10
        assert (await decode(pool, GOOD)).views
        assert pool.pids == before


async def test_no_descriptor_is_left_open() -> None:
    animation = moving([drawn(seed=number, size=100) for number in range(120)], "image/webp")
    async with pool_of() as pool:
        await decode(pool, GOOD)
        before = entries("/proc/self/fd")
        for _ in range(3):
            await decode(pool, animation, max_frames=0)
            await reason(pool, b"junk")
            task = asyncio.create_task(decode(pool, animation, max_frames=0))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await decode(pool, GOOD)
        assert entries("/proc/self/fd") == before


async def test_no_more_is_decoded_while_callers_hold_many_views() -> None:
    request = Request("", 16, frame_seconds=60)
    loop = asyncio.get_running_loop()
    async with pool_of(max_views=1) as pool:
        with shared(GOOD) as file:
            deadline = loop.time() + 60
            async with pool.decoded(file, request, priority=Priority.BULK, deadline=deadline):
                waiting = asyncio.create_task(decode(pool, GOOD))
                done, _ = await asyncio.wait({waiting}, timeout=0.3)
                assert not done
        assert (await waiting).views


async def test_what_waited_beyond_its_deadline_is_not_decoded() -> None:
    request = Request("", 16, frame_seconds=60)
    async with pool_of() as pool:
        past = asyncio.get_running_loop().time() - 1
        with shared(GOOD) as file:
            late = pool.decoded(file, request, priority=Priority.BULK, deadline=past)
            with pytest.raises(ScoringError) as caught:
                await late.__aenter__()
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("faults")
async def test_a_file_that_would_use_up_the_time_of_its_call_is_at_fault() -> None:
    """Its error comes before the deadline, which would let it in."""
    request = Request("", 16, frame_seconds=60)
    loop = asyncio.get_running_loop()
    async with pool_of() as pool:
        with shared(b"fault:spin") as file:
            deadline = loop.time() + 20
            request = Request("", 16, frame_seconds=60)
            spinning = pool.decoded(file, request, priority=Priority.BULK, deadline=loop.time() + 3)
            with pytest.raises(ScoringError) as caught:
                await spinning.__aenter__()
            assert caught.value.reason is Reason.DECODER_TIMEOUT
            assert loop.time() < deadline


@pytest.mark.usefixtures("faults")
async def test_a_file_that_nobody_got_to_work_on_is_not_at_fault() -> None:
    request = Request("", 16, frame_seconds=60)
    async with pool_of() as pool:
        deadline = asyncio.get_running_loop().time() + 2
        with shared(b"fault:sleep") as file:
            idle = pool.decoded(file, request, priority=Priority.BULK, deadline=deadline)
            with pytest.raises(ScoringError) as caught:
                await idle.__aenter__()
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        assert (await decode(pool, GOOD)).views


async def test_bulk_work_leaves_room_for_what_somebody_waits_for() -> None:
    request = Request("", 16, frame_seconds=60)
    deadline = asyncio.get_running_loop().time() + 60
    async with pool_of(max_views=2) as pool:
        with shared(GOOD) as file:
            async with pool.decoded(file, request, priority=Priority.BULK, deadline=deadline):
                waiting = asyncio.create_task(decode(pool, GOOD))
                interactive = pool.decoded(
                    file, request, priority=Priority.INTERACTIVE, deadline=deadline
                )
                async with interactive as media:
                    assert media.views
                assert not waiting.done()
        assert (await waiting).views


@pytest.mark.usefixtures("faults")
async def test_while_uploads_come_bulk_work_leaves_a_decoder_for_them() -> None:
    deadline = asyncio.get_running_loop().time() + 60
    async with pool_of(2, seconds=3) as pool:
        await upload(pool)
        bulk = [asyncio.create_task(reason(pool, b"fault:sleep")) for _ in range(2)]
        await asyncio.sleep(0)  # they are there first
        await upload(pool)
        assert pool.ahead(Priority.INTERACTIVE, deadline, "") == FilesAhead(1, lower=1)
        assert not any(task.done() for task in bulk)
        assert await asyncio.gather(*bulk) == [Reason.DECODER_TIMEOUT] * 2


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("uploads_came", [True, False])
async def test_bulk_work_has_all_decoders_where_no_uploads_come(
    uploads_came: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "UPLOADS_COME", 0.0)
    deadline = asyncio.get_running_loop().time() + 60
    async with pool_of(2, seconds=3) as pool:
        if uploads_came:
            await upload(pool)
        bulk = [asyncio.create_task(reason(pool, b"fault:sleep")) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the decoders have theirs
        assert pool.ahead(Priority.INTERACTIVE, deadline, "") == FilesAhead(2, lower=2)
        await upload(pool)
        assert not bulk[2].done()
        assert await asyncio.gather(*bulk) == [Reason.DECODER_TIMEOUT] * 3


async def upload(pool: DecoderPool) -> None:
    """A file that somebody waits for."""
    deadline = asyncio.get_running_loop().time() + 60
    request = Request("", 16, frame_seconds=60)
    with shared(GOOD) as file:
        waited_for = pool.decoded(file, request, priority=Priority.INTERACTIVE, deadline=deadline)
        async with waited_for as media:
            assert media.views


async def test_a_full_queue_refuses() -> None:
    async with pool_of(max_queue=1) as pool:
        tasks = [asyncio.create_task(decode(pool, GOOD)) for _ in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [error for error in results if isinstance(error, ScoringError)]
    assert {error.reason for error in refused} == {Reason.QUEUE_FULL}
    assert 0 < len(refused) < 5


async def test_a_process_that_cannot_start_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoder_process, "WORKER_MODULE", "tests.no_such_module")
    with pytest.raises(DecoderStartError, match="ended with code 1 before it was ready"):
        async with pool_of():
            pass
    assert "no_such_module" in capfd.readouterr().err


async def test_the_processes_go_when_the_service_is_killed() -> None:
    """Also one that is at work, or hangs: nobody is left to end it."""
    code = f"""
import asyncio, sys
from inference import decoder_process
decoder_process.WORKER_MODULE = {FAULTS!r}
from tests.inference.test_decoder_pool import *
async def main():
    async with pool_of(2, seconds=1) as pool:
        asyncio.create_task(decode(pool, b"fault:sleep"))
        await decode(pool, GOOD)
        print(*pool.pids, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in (await process.stdout.readline()).split()]
    assert len(pids) == 2
    process.kill()
    await process.wait()
    await asyncio.to_thread(
        wait_until, lambda: not any(map(is_alive, pids)), "the end of the decoders", 30
    )


def test_pictures_of_the_largest_size_fit_into_the_memory_of_a_decoder() -> None:
    """Twice over, as every type that needs the most of it: 40 megapixels with transparency."""

    async def run() -> None:
        image = Image.new("RGBA", (8000, 5000), (200, 30, 30, 128))
        async with pool_of(memory_bytes=2048 * MIB) as pool:
            for kind in ("image/png", "image/webp", "image/jxl", "image/avif"):
                options = {"speed": 10} if kind == "image/avif" else {}
                media = await decode(pool, still(image, kind, **options), hashes=True)
                assert media.facts.width == 8000, kind

    asyncio.run(run())
