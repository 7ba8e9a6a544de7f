"""An encoder that raises, gives NaN, dies, comes back or is slow, behind the real service."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from PIL import Image

from inference.orca import orca_pb2, orca_pb2_grpc
from tests.e2e.calls import RED, Caller, End
from tests.e2e.faulty_encoder import NAN, RAISES
from tests.e2e.processes import free_port, is_serving, running, wait_until
from tests.media import drawn, moving, still

BAD = still(drawn(("red", "triangle"), size=100))
GUILTY = [still(Image.new("RGB", (64, 64), colour)) for colour in (RAISES, NAN)]
CODE = grpc.StatusCode
FAILED = End(CODE.INTERNAL, "ENCODER_FAILED")


@dataclass(frozen=True)
class Faulty:
    address: str
    folder: Path

    def passes(self) -> int:
        """How many pictures were encoded so far, failed ones included."""
        return (self.folder / "passes").stat().st_size


@contextlib.contextmanager
def faulty(folder: Path, *flags: str) -> Iterator[Faulty]:
    address = f"127.0.0.1:{free_port()}"
    command = ["tests.e2e.faulty_encoder", str(folder), "--listen", address, *flags]
    command += ["--cache-folder", str(folder / "cache")]
    ready = lambda: is_serving(address)  # noqa: E731
    with running([*command, "--backend", "pytorch"], address, ready):
        yield Faulty(address, folder)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty(tmp_path_factory.mktemp("encoder"), "--max-batch", "8") as started:
        yield started


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """Half a second for a picture, one at a time, and known from the start."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow").write_text("0.5")
    with faulty(folder, "--max-batch", "1") as started:
        yield started


async def test_in_a_burst_only_the_guilty_images_fail(service: Faulty) -> None:
    async with Caller(service.address) as caller:
        files = [BAD if number % 5 else GUILTY[number % 2] for number in range(60)]
        ends = await asyncio.gather(*map(caller.score, files))
        for file, end in zip(files, ends, strict=True):
            if file in GUILTY:
                assert end == FAILED
            else:
                assert end.code is CODE.OK
                assert end.similarities[0] > RED
        # Who sends only such pictures takes nobody's service away.
        for _ in range(5):
            assert set(await asyncio.gather(*map(caller.score, GUILTY * 3))) == {FAILED}
            assert await asyncio.to_thread(is_serving, service.address)


async def test_a_device_that_dies_turns_health_until_it_works_again(service: Faulty) -> None:
    broken = service.folder / "broken"
    async with Caller(service.address) as caller:
        broken.touch()
        assert set(await asyncio.gather(*map(caller.score, [BAD] * 8))) == {FAILED}
        address = service.address
        await asyncio.to_thread(wait_until, lambda: not is_serving(address), "NOT_SERVING", 20)
        assert await caller.score(BAD) == FAILED
        broken.unlink()
        await asyncio.to_thread(wait_until, lambda: is_serving(address), "SERVING", 20)
        assert (await caller.score(BAD)).similarities[0] > RED


async def test_what_can_not_be_done_in_time_is_refused_before_it_costs_a_pass(
    slow: Faulty,
) -> None:
    frames = [drawn(("blue", "circle"), seed=seed, size=64) for seed in range(16)]
    animation = moving(frames, "image/gif")
    async with Caller(slow.address) as caller:
        before = slow.passes()
        end = await caller.score(animation, seconds=6)
        assert end == End(CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert slow.passes() == before
        assert (await caller.score(BAD)).similarities[0] > RED
        assert slow.passes() == before + 1


async def test_what_is_too_much_is_refused_before_it_costs_a_pass(slow: Faulty) -> None:
    """Forty pictures that take half a second each, with time for ten."""
    async with Caller(slow.address) as caller:
        assert (await caller.score(BAD)).code is CODE.OK
        before = slow.passes()
        ends = await asyncio.gather(*(caller.score(BAD, seconds=5) for _ in range(40)))
        codes = Counter((end.code, end.reason) for end in ends)
        done = codes[CODE.OK, ""]
        assert 1 <= done <= 10
        # The one when too much is ahead, the other when time has run out meanwhile.
        full = CODE.RESOURCE_EXHAUSTED, "QUEUE_FULL"
        late = CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"
        assert codes[full] >= 15, codes
        assert codes[full] + codes[late] >= 28, codes
        assert slow.passes() <= before + done + 1
        # Again, when it is seen at the header.
        busy = asyncio.gather(*(caller.score(BAD, seconds=20) for _ in range(10)))
        while (refused := await caller.score(BAD, seconds=1)).code is CODE.OK:
            pass
        assert refused.reason in ("QUEUE_FULL", "DEADLINE_EXCEEDED")
        assert {end.code for end in await busy} == {CODE.OK}


async def test_a_client_that_floods_keeps_no_other_waiting(service: Faulty) -> None:
    """Of 190 calls that came before, most come after."""
    (service.folder / "slow").write_text("0.02")
    flooded = 0
    async with Caller(service.address) as caller:

        async def flood() -> None:
            nonlocal flooded
            assert (await caller.score(BAD, client="flood")).code is CODE.OK
            flooded += 1
            begun.set()

        begun = asyncio.Event()
        calls = asyncio.gather(*(flood() for _ in range(190)))
        await begun.wait()
        assert (await caller.score(BAD, client="other")).code is CODE.OK
        assert flooded < 100
        await calls
    (service.folder / "slow").unlink()


async def _refusals_are_reported(caller: Caller) -> None:
    stub = orca_pb2_grpc.OpenRcaServiceStub(caller.channel)
    request = orca_pb2.OrcaLoadReportRequest(report_interval=Duration(nanos=100_000_000))
    async for report in stub.StreamCoreMetrics(request, timeout=30):
        if report.eps > 0:
            return


async def test_a_device_that_is_stuck_is_told_from_one_that_is_busy(tmp_path: Path) -> None:
    # Bound by 20 times what a batch was measured to take, too.
    with faulty(tmp_path, "--max-batch", "1", "--wedged-seconds", "1.5") as service:
        address = service.address

        def alive() -> bool:
            return is_serving(address, "liveness")

        def ready() -> bool:
            return is_serving(address, "imagesafety.v1.ScoringService")

        async with Caller(address) as caller:
            (tmp_path / "slow").write_text("0.3")
            many = asyncio.gather(*(caller.score(BAD) for _ in range(8)))
            while not many.done():
                assert await asyncio.to_thread(alive)
                assert await asyncio.to_thread(ready)
            assert {end.code for end in await many} == {CODE.OK}
            (tmp_path / "slow").unlink()

            (tmp_path / "stuck").touch()
            reported = asyncio.create_task(_refusals_are_reported(caller))
            ends = await asyncio.gather(*(caller.score(BAD, seconds=2) for _ in range(3)))
            assert {end.code for end in ends} == {CODE.DEADLINE_EXCEEDED}
            await reported
            await asyncio.to_thread(wait_until, lambda: not alive(), "NOT_SERVING", 30)
            await asyncio.to_thread(wait_until, lambda: not ready(), "NOT_SERVING", 30)
            assert not await asyncio.to_thread(is_serving, address)
            (tmp_path / "stuck").unlink()
            await asyncio.to_thread(wait_until, lambda: alive() and ready(), "SERVING", 30)
            assert (await caller.score(BAD)).similarities[0] > RED


def test_a_service_with_a_stuck_device_ends_when_it_is_told_to(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = ["--backend", "pytorch", "--max-batch", "1", "--drain-seconds", "0.5"]
    command = ["tests.e2e.faulty_encoder", str(tmp_path), "--listen", address, *flags]
    with running(command, address, lambda: is_serving(address)) as service:

        async def stick() -> End:
            async with Caller(address) as caller:
                return await caller.score(BAD, seconds=1)

        (tmp_path / "stuck").touch()
        assert asyncio.run(stick()).code is CODE.DEADLINE_EXCEEDED
        assert service.stop(60) == 1
        assert "the device did not come back" in service.output()
