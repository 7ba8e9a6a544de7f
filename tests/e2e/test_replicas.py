"""Several inference replicas behind one target: what one does not do, another one does."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from imagesafety.v1 import scoring_pb2
from tests.e2e.metrics_page import metric
from tests.e2e.pict_rs import post
from tests.e2e.processes import fetch, free_port, gateway, off_loop, wait_until
from tests.e2e.scripted_inference import (
    Behaviour,
    Context,
    full,
    read_all,
    refuse,
    scores,
    scripted,
)
from tests.e2e.test_pair import GOOD

MIB = 1024 * 1024
Messages = AsyncIterator[scoring_pb2.ScoreImageRequest]


class Counting:
    """A replica that scores, and remembers the bytes that it got."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def __call__(
        self, messages: Messages, context: Context
    ) -> scoring_pb2.ScoreImageResponse:
        self.sizes.append(await read_all(messages))
        return scores(0, 0, 0, 0)


class Failing:
    """A replica that fails after reading as much of an upload as it is told."""

    def __init__(self, code: grpc.StatusCode, reason: str, messages: int | None = 0) -> None:
        self.calls = 0
        self._code, self._reason, self._messages = code, reason, messages

    async def __call__(
        self, messages: Messages, context: Context
    ) -> scoring_pb2.ScoreImageResponse:
        self.calls += 1
        count = 0
        while count != self._messages and await anext(messages, None) is not None:
            count += 1
        await refuse(context, self._code, self._reason)


def gone(messages: int | None = 0) -> Failing:
    return Failing(grpc.StatusCode.UNAVAILABLE, "", messages)


def target_of(*addresses: str) -> str:
    return f"ipv4:{','.join(addresses)}"


@pytest.mark.parametrize(
    "broken",
    [
        lambda: gone(),
        lambda: gone(2),
        lambda: gone(None),
        lambda: Failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        lambda: Failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", None),
    ],
)
async def test_no_upload_is_lost_to_one_replica_of_two(broken: Callable[[], Failing]) -> None:
    failing, well = broken(), Counting()
    async with (
        scripted(failing) as (one, _),
        scripted(well) as (other, _),
        off_loop(gateway(target_of(one, other), "--repeats", "false", ready=False)) as here,
    ):
        while not well.sizes:  # until both are connected
            await post(here.address, GOOD)
        before = failing.calls - await retried(here.admin)
        for size in (0, 3 * MIB):
            for number in range(10):
                data = GOOD + bytes([number]) + bytes(size)
                answer = await post(here.address, data)
                assert (answer.status, answer.body["cause"]) == (200, "policy")
                assert well.sizes[-1] == len(data)
        assert failing.calls > 0
        # Now and then, the second call comes to the same replica, and a third one is made.
        assert failing.calls - await retried(here.admin) == before


async def test_an_upload_that_is_still_coming_in_goes_on_with_another_replica() -> None:
    failing, well, went_on = gone(2), Counting(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield GOOD
        yield bytes(MIB)
        await went_on.wait()
        yield bytes(MIB)

    async def waits(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        went_on.set()
        return await well(messages, context)

    async with (
        scripted(failing) as (one, _),
        scripted(waits) as (other, _),
        off_loop(gateway(target_of(one, other), "--repeats", "false", ready=False)) as here,
    ):
        went_on.set()
        while not well.sizes:  # until both are connected
            await post(here.address, GOOD)
        failing.calls = 0
        while failing.calls == 0:
            went_on.clear()
            answer = await post(here.address, body())
            assert answer.body["cause"] == "policy"
            assert well.sizes[-1] == len(GOOD) + 2 * MIB


async def test_what_is_over_the_memory_for_retries_is_answered_by_its_cause() -> None:
    failing = gone(None)
    async with scripted(failing) as (target, _):
        flags = ("--retry-bytes", str(4 * MIB), "--repeats", "false")
        async with off_loop(gateway(target, *flags, ready=False)) as here:
            answer = await post(here.address, GOOD + bytes(2 * MIB))
            assert (answer.status, answer.body["cause"]) == (200, "unavailable")
            assert failing.calls == 1
            assert await retries(here.admin, "not_kept") == 1
            # What it had of that memory is there again for others.
            for _ in range(10):
                failing.calls = 0
                assert (await post(here.address, GOOD + bytes(MIB // 2))).status == 200
                assert failing.calls > 1


async def test_replicas_that_are_all_full_are_not_asked_ever_more() -> None:
    failing = Failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    async with (
        scripted(failing) as (target, _),
        off_loop(gateway(target, "--repeats", "false", ready=False)) as here,
    ):
        for _ in range(100):
            answer = await post(here.address, GOOD)
            assert (answer.status, answer.body["cause"]) == (200, "overload")
        assert failing.calls < 150


async def test_a_second_replica_is_asked_when_the_first_takes_long() -> None:
    async def never(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        await asyncio.Event().wait()
        raise AssertionError

    well = Counting()
    async with scripted(never) as (one, silent), scripted(well) as (other, _):
        flags = ("--hedge-after", "0.2", "--repeats", "false", "--time-budget", "60")
        async with off_loop(gateway(target_of(one, other), *flags, ready=False)) as here:
            while not silent.began.is_set():
                answer = await post(here.address, GOOD)
                assert (answer.status, answer.body["cause"]) == (200, "policy")
            await asyncio.wait_for(silent.cancelled.wait(), 10)
            assert await metric(here.admin, "imagesafety_hedges_total", outcome="won") >= 1


async def test_a_hedge_does_not_hide_what_is_wrong_with_a_file() -> None:
    async def slowly(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        await asyncio.sleep(0.3)
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")

    async with (
        scripted(slowly) as (target, _),
        off_loop(gateway(target, "--hedge-after", "0.05", ready=False)) as here,
    ):
        answer = await post(here.address, GOOD)
        assert (answer.status, answer.body["cause"]) == (406, "undecodable")


@pytest.mark.parametrize("hedge", ["0", "0.05"])
async def test_nobody_is_there(hedge: str) -> None:
    nowhere = target_of(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    async with off_loop(gateway(nowhere, "--hedge-after", hedge, ready=False)) as here:
        answer = await post(here.address, GOOD)
        assert (answer.status, answer.body["cause"]) == (200, "unavailable")


@pytest.mark.parametrize("behaviour", [Counting(), full])
async def test_the_gateway_is_ready_once_a_replica_was_reached(behaviour: Behaviour) -> None:
    port = free_port()
    flags = ("--warm-up-seconds", "60")
    async with off_loop(gateway(f"127.0.0.1:{port}", *flags, ready=False)) as here:
        status, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
        assert (status, "warm up" in body) == (503, True)
        # An outage is no reason to keep uploads away, but a start without a warm-up is.
        some = f"http://{here.address}/readyz?exclude=inference,policy"
        status, body = await asyncio.to_thread(fetch, some)
        assert status == 503
        assert "no replica" in body or "connections" in body
        async with scripted(behaviour, port=port):
            await until_status(f"http://{here.address}/readyz", 200)
        assert (await asyncio.to_thread(fetch, some))[0] == 200
        await until_status(f"http://{here.address}/readyz", 503)


async def test_a_start_without_inference_takes_uploads_after_a_while() -> None:
    flags = ("--warm-up-seconds", "0.5")
    async with off_loop(gateway(f"127.0.0.1:{free_port()}", *flags, ready=False)) as here:
        some = f"http://{here.address}/readyz?exclude=inference&exclude=policy"
        await until_status(some, 200)
        assert (await asyncio.to_thread(fetch, f"http://{here.address}/readyz"))[0] == 503


async def retried(admin: str) -> float:
    return await retries(admin, "answered") + await retries(admin, "failed")


async def retries(admin: str, outcome: str) -> float:
    return await metric(admin, "imagesafety_retries_total", outcome=outcome)


async def until_status(url: str, status: int) -> None:
    await asyncio.to_thread(wait_until, lambda: fetch(url)[0] == status, f"{status} at {url}", 30)


async def test_a_device_that_fails_costs_a_call_and_no_upload() -> None:
    failing, well = Failing(grpc.StatusCode.INTERNAL, "ENCODER_FAILED", None), Counting()
    async with (
        scripted(failing) as (one, _),
        scripted(well) as (other, _),
        off_loop(gateway(target_of(one, other), "--repeats", "false", ready=False)) as here,
    ):
        while not well.sizes:  # until both are connected
            await post(here.address, GOOD)
        failing.calls = 0
        causes = [(await post(here.address, GOOD)).body["cause"] for _ in range(20)]
        assert failing.calls > 0
        # There are two calls, and now and then both go to the same replica.
        assert causes.count("policy") >= 18
    # A file that makes the model fail is not sent to one replica after the other.
    failing.calls = 0
    async with (
        scripted(failing) as (target, _),
        off_loop(gateway(target, ready=False)) as here,
    ):
        assert (await post(here.address, GOOD)).body["cause"] == "error"
        assert failing.calls == 2


async def test_a_file_that_ends_its_replica_is_not_given_to_all_of_them() -> None:
    failing = gone(None)
    async with scripted(failing) as (target, _), off_loop(gateway(target, ready=False)) as here:
        assert (await post(here.address, GOOD)).body["cause"] == "unavailable"
        assert 2 <= failing.calls <= 4


async def test_an_upload_waits_for_the_end_of_a_restart() -> None:
    port, well = free_port(), Counting()
    flags = ("--repeats", "false", "--time-budget", "60")
    async with off_loop(gateway(f"127.0.0.1:{port}", *flags, ready=False)) as here:
        async with scripted(well, port=port):
            assert (await post(here.address, GOOD)).body["cause"] == "policy"
        waiting = asyncio.create_task(post(here.address, GOOD))
        async with asyncio.timeout(30):
            while await retries(here.admin, "failed") < 3:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
        async with scripted(well, port=port):
            assert (await waiting).body["cause"] == "policy"


async def test_a_client_that_is_refused_takes_no_retries_from_others() -> None:
    def full_for(*names: str) -> Behaviour:
        async def behaviour(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
            header = (await anext(messages)).header
            if header.options.client in names:
                await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
            await read_all(messages)
            return scores(0, 0, 0, 0)

        return behaviour

    greedy, other = "0123456789abcdef", "fedcba9876543210"
    flags = ("--client-secrets", f"greedy:{greedy},other:{other}", "--repeats", "false")
    async with (
        scripted(full_for("greedy", "other")) as (one, _),
        scripted(full_for("greedy")) as (two, _),
        off_loop(gateway(target_of(one, two), *flags, ready=False)) as here,
    ):
        for _ in range(30):
            answer = await post(here.address, GOOD, path=f"/api/v1/scan/{greedy}")
            assert answer.body["cause"] == "overload"
        for _ in range(30):
            answer = await post(here.address, GOOD, path=f"/api/v1/scan/{other}")
            assert answer.body["cause"] == "policy"


async def test_a_policy_for_another_model_keeps_the_gateway_out_of_the_way() -> None:
    """So a roll-out of it stops, and the old gateways stay."""
    other = scoring_pb2.ModelIdentity(name="other", weights_digest="sha256:1")

    async def of_another(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        answer = scores(0, 0, 0, 0)
        answer.scores.model.CopyFrom(other)
        return answer

    async with scripted(of_another, other) as (target, _):
        flags = ("--warm-up-seconds", "0.5")
        async with off_loop(gateway(target, *flags, ready=False)) as here:
            some = f"http://{here.address}/readyz?exclude=inference,policy"
            said = "the policy is for model demo, inference has other"
            await asyncio.to_thread(wait_until, lambda: said in fetch(some)[1], said, 30)
            for _ in range(20):
                assert (await asyncio.to_thread(fetch, some))[0] == 503
                await asyncio.sleep(0.1)
