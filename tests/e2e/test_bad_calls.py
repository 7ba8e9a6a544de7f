"""Clients that stall, drip, flood and run away: the right status, and the next call is served."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import pytest

from tests.e2e.calls import (
    RED,
    Bulk,
    Caller,
    End,
    Request,
    bulk_answers,
    bulk_header,
    ended,
    header,
    piece,
)
from tests.e2e.conftest import Pair
from tests.e2e.processes import inference, is_serving, off_loop, resident_bytes
from tests.media import drawn, still

BAD = still(drawn(("red", "triangle"), size=100))
CODE = grpc.StatusCode
STALLED = End(CODE.DEADLINE_EXCEEDED, "UPLOAD_STALLED")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    """A service that waits a second for the next bytes."""
    with inference("--idle-seconds", "1") as service:
        yield service.address


@asynccontextmanager
async def caller(address: str) -> AsyncIterator[Caller]:
    """A client, after which the next honest one is served."""
    async with Caller(address) as bad:
        yield bad
    async with Caller(address) as honest:
        end = await honest.score(BAD)
        assert end.code is CODE.OK, end
        assert min(end.similarities) > RED


async def test_a_deadline_that_has_passed(pair: Pair) -> None:
    async with caller(pair.inference) as bad:
        for seconds in (0.0, -1.0, 0.001):
            assert (await bad.score(BAD, seconds=seconds)).code is CODE.DEADLINE_EXCEEDED


@pytest.mark.parametrize("sent", [[], [header()], [header(), Request(chunk=BAD)]])
async def test_who_never_half_closes_is_cut_off(impatient: str, sent: list[Request]) -> None:
    async with caller(impatient) as bad:
        call = bad.stub.ScoreImage(timeout=60)
        assert await ended(call, sent, half_closes=False) == STALLED


async def test_who_drips_bytes_is_cut_off(impatient: str) -> None:
    async with caller(impatient) as bad:
        call = bad.stub.ScoreImage(timeout=60)
        drops = (Request(chunk=BAD[at : at + 1]) for at in range(len(BAD)))
        assert await ended(call, [header(), *drops], pause=0.2) == STALLED


async def test_an_image_of_a_stream_that_stalls_is_given_up_and_the_stream_goes_on(
    impatient: str,
) -> None:
    async with caller(impatient) as bad:
        call = bad.stub.ScoreImages(timeout=60)
        await call.write(bulk_header())
        await call.write(piece("stalled", BAD[:100]))
        answers = bulk_answers(call)
        assert await anext(answers) == ("stalled", "UPLOAD_STALLED")
        await call.write(piece("stalled", BAD[100:], last=True))  # too late, and no new image
        await call.write(piece("whole", BAD, last=True))
        assert await anext(answers) == ("whole", "scores")
        await call.done_writing()
        assert [answer async for answer in answers] == []
        assert await call.code() is CODE.OK


async def test_an_image_of_a_stream_that_drips_is_given_up(impatient: str) -> None:
    async with caller(impatient) as bad:
        call = bad.stub.ScoreImages(timeout=60)
        await call.write(bulk_header())

        async def drip() -> None:
            for at in range(len(BAD)):
                await call.write(piece("dripping", BAD[at : at + 1]))
                await asyncio.sleep(0.2)

        dripping = asyncio.create_task(drip())
        try:
            first = await asyncio.wait_for(anext(bulk_answers(call)), 8)
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
            call.cancel()
        assert first == ("dripping", "UPLOAD_STALLED")


async def test_a_stream_without_a_header_is_cut_off(impatient: str) -> None:
    """It has a place among the calls that the service takes at once."""
    async with caller(impatient) as bad:
        call = bad.stub.ScoreImages(timeout=60)
        try:
            assert await asyncio.wait_for(call.code(), 8) is CODE.DEADLINE_EXCEEDED
        finally:
            call.cancel()


async def test_streams_without_images_push_out_nobody() -> None:
    """Neither probes nor uploads, however many there are."""
    flags = ("--max-images", "4")
    async with off_loop(inference(*flags)) as service, caller(service.address) as bad:
        streams = [bad.stub.ScoreImages() for _ in range(4)]
        for stream in streams:
            await stream.write(bulk_header())
        more = [bad.stub.ScoreImages() for _ in range(2000)]
        codes = await asyncio.gather(*(stream.code() for stream in more))
        assert Counter(codes) == {CODE.RESOURCE_EXHAUSTED: 2000}
        assert await asyncio.to_thread(is_serving, service.address)
        assert (await bad.score(BAD)).code is CODE.OK
        await streams[0].write(piece("still here", BAD, last=True))
        assert await anext(bulk_answers(streams[0])) == ("still here", "scores")
        for stream in streams:
            stream.cancel()


async def test_single_bytes_are_an_image_too(pair: Pair) -> None:
    async with caller(pair.inference) as odd:
        end = await odd.score(BAD, chunk=1)
        assert end == await odd.score(BAD)
        call = odd.stub.ScoreImages(timeout=60)

        async def messages() -> AsyncIterator[Bulk]:
            yield bulk_header()
            for at in range(len(BAD)):
                yield piece("bytes", BAD[at : at + 1], last=at + 1 == len(BAD))

        call = odd.stub.ScoreImages(messages(), timeout=60)
        assert [answer async for answer in bulk_answers(call)] == [("bytes", "scores")]


async def test_who_cancels_everything_leaves_nothing_behind(pair: Pair) -> None:
    """More than twice as many calls as there are places."""
    rng = random.Random(0)
    before = resident_bytes(pair.inference_pid)
    async with caller(pair.inference) as bad:

        async def cancelled(number: int) -> None:
            call = bad.stub.ScoreImage(timeout=60)
            half = len(BAD) // 2
            parts = [header(), Request(chunk=BAD[:half]), Request(chunk=BAD[half:])]
            for part in parts[: number % 4]:
                await call.write(part)
            if number % 8 == 3:
                await call.done_writing()
            await asyncio.sleep(rng.random() / 10)
            call.cancel()
            assert call.done()

        for start in range(0, 600, 100):
            await asyncio.gather(*map(cancelled, range(start, start + 100)))
        streams = [bad.stub.ScoreImages(timeout=60) for _ in range(40)]
        for stream in streams:
            await stream.write(bulk_header())
            await stream.write(piece("a", BAD))
            stream.cancel()
    assert resident_bytes(pair.inference_pid) < before + 64 * MIB


async def test_a_burst_of_5000_calls_is_answered_in_bounded_memory(pair: Pair) -> None:
    before = resident_bytes(pair.inference_pid)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, resident_bytes(pair.inference_pid))
            await asyncio.sleep(0.05)

    async with caller(pair.inference) as burst:
        watching = asyncio.create_task(watch())
        ends = await asyncio.gather(*(burst.score(BAD) for _ in range(5000)))
        watching.cancel()
    assert most < before + 128 * MIB
    counts = Counter(end.code for end in ends)
    assert set(counts) <= {CODE.OK, CODE.RESOURCE_EXHAUSTED, CODE.DEADLINE_EXCEEDED}, counts
    assert counts[CODE.OK] >= 192, counts  # as many as one client has places


async def test_a_client_has_a_quota_and_others_still_find_room() -> None:
    flags = ("--max-images", "4", "--client-quotas", "large:4")
    async with off_loop(inference(*flags)) as service, Caller(service.address) as client:
        held = [client.stub.ScoreImage() for _ in range(4)]
        full = End(CODE.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        for call in held[:3]:  # three quarters
            await call.write(header("a"))
        # When this one is refused, the three are in.
        while await client.score(BAD, client="a") != full:
            pass
        assert (await client.score(BAD, client="b")).code is CODE.OK
        await held[3].write(header("large"))
        while await client.score(BAD, client="b") != full:
            pass
        for call in held:
            call.cancel()
        while (await client.score(BAD, client="a")).code is not CODE.OK:
            pass
