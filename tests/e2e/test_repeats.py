"""The same bytes again: earlier, at the same time, or after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from imagesafety.policy_file import find_policy
from imagesafety.v1 import scoring_pb2
from tests.e2e.pict_rs import CHUNK_BYTES, pieces, post
from tests.e2e.processes import Service, deny, gateway, off_loop
from tests.e2e.scripted_inference import Context, full, read_all, refuse, scores, scripted
from tests.e2e.test_pair import GOOD

Messages = AsyncIterator[scoring_pb2.ScoreImageRequest]
Start = Callable[..., Awaitable[Service]]
DEMO = find_policy("demo").read_text()
RED = (0.3, 0.3, 0.0, 0.0)  # something red and a triangle, under the demo policy
LARGE = GOOD + bytes(1024 * 1024)  # so that a call begins before the body has ended


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts gateways on one data folder, one after the other."""
    async with AsyncExitStack() as stack:

        async def start_gateway(target: str, *flags: str) -> Service:
            await stack.aclose()
            # Of a warm-up, the service would see a picture more.
            once = ("--warm-up-seconds", "0")
            here = gateway(target, *flags, *once, data_folder=tmp_path)
            return await stack.enter_async_context(off_loop(here))

        yield start_gateway


class Scoring:
    """Rejects every image, when it is allowed to, and counts those that it worked on.

    A call that is cancelled looks at first like one whose image is whole: so does a forward pass
    take its time here, too.
    """

    def __init__(self) -> None:
        self.images = 0
        self.began = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(
        self, messages: Messages, context: Context
    ) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        self.began.set()
        await self.may_answer.wait()
        await asyncio.sleep(0.1)
        self.images += 1
        return scores(*RED)


@pytest.mark.parametrize("data", [GOOD, LARGE])
async def test_a_repeat_is_answered_from_memory_and_after_a_restart_from_the_ledger(
    data: bytes, start: Start
) -> None:
    scoring = Scoring()
    async with scripted(scoring) as (target, _):
        here = await start(target)
        first = await post(here.address, data)
        assert (first.status, first.body["cause"], first.body["rule"]) == (
            *(406, "policy", "red-and-triangle"),
        )
        for again in ("from memory", "after a restart"):
            if again == "after a restart":
                here = await start(target)
                scoring.may_answer.clear()  # the ledger has to
            answer = await post(here.address, data)
            assert (answer.status, answer.body["cause"]) == (406, "repeat")
            assert answer.body["rule"] == "red-and-triangle"
            assert answer.body["id"] != first.body["id"]


async def test_other_bytes_another_type_and_another_policy_are_no_repeat(
    start: Start, tmp_path: Path
) -> None:
    scoring = Scoring()
    policy = tmp_path / "policy.toml"
    policy.write_text(DEMO)
    async with scripted(scoring) as (target, _):
        here = await start(target, "--policy", str(policy))
        await post(here.address, GOOD)
        assert (await post(here.address, GOOD + b"\0")).body["cause"] == "policy"
        assert (await post(here.address, GOOD, "image/apng")).body["cause"] == "policy"
        policy.write_text(f"{DEMO}# changed\n")
        here = await start(target, "--policy", str(policy))
        assert (await post(here.address, GOOD)).body["cause"] == "policy"
        here = await start(target, "--policy", str(policy), "--repeats", "false")
        assert (await post(here.address, GOOD)).body["cause"] == "policy"
    assert scoring.images == 5


@pytest.mark.parametrize("data", [GOOD, LARGE])
async def test_the_same_bytes_at_the_same_time_cost_one_scoring(data: bytes, start: Start) -> None:
    scoring = Scoring()
    scoring.may_answer.clear()
    async with scripted(scoring) as (target, _):
        here = await start(target)
        together = [asyncio.create_task(post(here.address, data)) for _ in range(20)]
        await asyncio.wait_for(scoring.began.wait(), 10)
        scoring.may_answer.set()
        answers = await asyncio.gather(*together)
    assert {answer.status for answer in answers} == {406}
    assert sorted(answer.body["cause"] for answer in answers) == ["policy"] + 19 * ["repeat"]
    assert scoring.images == 1


@pytest.mark.parametrize("data", [GOOD, LARGE])
async def test_what_the_bytes_are_the_cause_of_is_so_for_all_who_bring_them(
    data: bytes, start: Start
) -> None:
    """Copies of a file that costs its decoder all its time don't wait for one another."""
    scoring = Scoring()
    scoring.may_answer.clear()

    async def broken(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await scoring(messages, context)
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "DECODER_TIMEOUT")

    async def partly(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        answer = await scoring(messages, context)
        answer.scores.partial = "cut off"
        return answer

    async def too_long(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await scoring(messages, context)
        await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LONG")

    for behaviour, status in ((broken, 406), (partly, 406), (too_long, 413)):
        scoring.images = 0
        scoring.began.clear()
        scoring.may_answer.clear()
        async with scripted(behaviour) as (target, _):
            here = await start(target)
            together = [asyncio.create_task(post(here.address, data)) for _ in range(10)]
            await asyncio.wait_for(scoring.began.wait(), 10)
            scoring.may_answer.set()
            answers = await asyncio.gather(*together)
        assert {answer.status for answer in answers} == {status}
        assert scoring.images == 1


@pytest.mark.parametrize("data", [GOOD, LARGE])
async def test_known_bytes_are_known_while_inference_is_full_or_gone(
    data: bytes, start: Start, tmp_path: Path
) -> None:
    async with scripted(Scoring()) as (target, service):
        here = await start(target)
        await post(here.address, data)
        service.behaviour = full
        unknown = await post(here.address, data + b"\0")
        assert (unknown.status, unknown.body["cause"]) == (200, "overload")
        for _ in range(2):
            answer = await post(here.address, data)
            assert (answer.status, answer.body["cause"]) == (406, "repeat")
            here = await start(target)  # then the ledger has to
    async with off_loop(gateway(target, ready=False, data_folder=tmp_path)) as alone:
        answer = await post(alone.address, data)
        assert (answer.status, answer.body["cause"]) == (406, "repeat")


async def test_scores_without_hashes_get_past_no_override_by_looks(start: Start) -> None:
    look = scoring_pb2.PerceptualHash(pdq=bytes(range(32)), quality=90)
    may_answer = asyncio.Event()

    async def hashing(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        await may_answer.wait()
        answer = scores(0.0, 0.0, 0.0, 0.0)
        answer.scores.perceptual_hashes.append(look)
        return answer

    async def plain(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        return scores(0.0, 0.0, 0.0, 0.0)

    async with scripted(plain) as (target, service):
        here = await start(target, "--perceptual-hashes", "false")
        assert (await post(here.address, GOOD)).status == 200
        service.behaviour = hashing
        here = await start(target)
        assert (await post(here.address, GOOD)).body["cause"] == "repeat"
        may_answer.set()
        await deny(here.admin, pdq=look.pdq.hex())
        answer = await post(here.address, GOOD)
        assert (answer.status, answer.body["cause"]) == (406, "override")


async def test_when_the_first_one_hangs_up_another_one_is_scored(start: Start) -> None:
    scoring = Scoring()
    scoring.may_answer.clear()
    async with scripted(scoring) as (target, service):
        here = await start(target)
        first = asyncio.create_task(post(here.address, LARGE))
        await asyncio.wait_for(scoring.began.wait(), 10)
        second = asyncio.create_task(post(here.address, LARGE))
        scoring.began.clear()
        first.cancel()
        await asyncio.wait_for(service.cancelled.wait(), 10)
        await asyncio.wait_for(scoring.began.wait(), 10)
        scoring.may_answer.set()
        answer = await second
    assert (answer.status, answer.body["cause"]) == (406, "policy")
    assert scoring.images == 1


async def test_a_slow_body_is_known_at_its_end(start: Start) -> None:
    scoring = Scoring()
    async with scripted(scoring) as (target, service):
        here = await start(target)
        await post(here.address, LARGE)
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            async for piece in pieces(LARGE[:-CHUNK_BYTES]):
                yield piece
            await go_on.wait()
            yield LARGE[-CHUNK_BYTES:]

        service.began.clear()
        slow = asyncio.create_task(post(here.address, slowly()))
        await asyncio.wait_for(service.began.wait(), 10)
        go_on.set()
        assert (await slow).body["cause"] == "repeat"
        await asyncio.wait_for(service.cancelled.wait(), 10)
    assert scoring.images == 1


async def test_what_was_not_scored_is_not_repeated(start: Start) -> None:
    scoring = Scoring()
    async with scripted(full) as (target, service):
        here = await start(target)
        assert (await post(here.address, GOOD)).body["cause"] == "overload"
        service.behaviour = scoring
        assert (await post(here.address, GOOD)).body["cause"] == "policy"


async def test_what_was_seen_in_part_only_is_not_repeated(start: Start) -> None:
    async def partly(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        answer = scores(*RED)
        answer.scores.partial = "no time"
        return answer

    async with scripted(partly) as (target, _):
        here = await start(target)
        for _ in range(2):
            assert (await post(here.address, GOOD)).body["cause"] == "policy"
        here = await start(target)
        assert (await post(here.address, GOOD)).body["cause"] == "policy"
