"""The gateway's answers when inference is down, slow, full or gone in the middle."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from imagesafety.v1 import scoring_pb2
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import (
    Service,
    children,
    fetch,
    free_port,
    gateway,
    is_alive,
    off_loop,
    running,
    wait_until,
)
from tests.e2e.scripted_inference import Behaviour, Context, full, read_all, scores, scripted
from tests.e2e.test_pair import BAD, GOOD

MIB = 1024 * 1024
Messages = AsyncIterator[scoring_pb2.ScoreImageRequest]
REFUSE_ALL = [
    flag
    for cause in ("undecodable", "overload", "unavailable", "deadline", "error")
    for flag in (f"--on-{cause}", "reject")
]


Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts gateways that know an inference service at a target."""
    async with AsyncExitStack() as stack:

        async def start_gateway(target: str, *flags: str) -> Service:
            return await stack.enter_async_context(off_loop(gateway(target, *flags, ready=False)))

        yield start_gateway


async def accept(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    await read_all(messages)
    return scores(0, 0, 0, 0)


async def never(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    await read_all(messages)
    await asyncio.Event().wait()
    raise AssertionError


async def deaf(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    """Takes the call and never reads."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_inference_is_down(start: Start) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    answer = await post((await start(nowhere)).address, GOOD)
    assert (answer.status, answer.body["cause"]) == (200, "unavailable")
    strict = await start(nowhere, *REFUSE_ALL)
    answer = await post(strict.address, GOOD)
    assert (answer.status, answer.body["decision"]) == (503, "reject")
    status, body = await asyncio.to_thread(fetch, f"http://{strict.address}/readyz")
    assert status == 503
    assert "UNAVAILABLE" in json.loads(body)["components"]["inference"]
    assert (await asyncio.to_thread(fetch, f"http://{strict.address}/livez"))[0] == 200


@pytest.mark.parametrize("behaviour", [never, deaf])
async def test_inference_is_slow_and_the_answer_is_out_within_the_budget(
    behaviour: Behaviour, start: Start
) -> None:
    async with scripted(behaviour) as (target, service):
        here = await start(target, "--time-budget", "3")
        started = time.monotonic()
        answer = await post(here.address, GOOD + bytes(8 * MIB))
        assert time.monotonic() - started < 3
        assert (answer.status, answer.body["cause"]) == (200, "deadline")
        await asyncio.wait_for(service.cancelled.wait(), 10)


async def test_inference_is_full_and_says_so_before_the_upload_is_in(start: Start) -> None:
    async with scripted(full) as (target, _):
        here = await start(target)
        strict = await start(target, *REFUSE_ALL)
        for size in (0, 20 * MIB):
            answer = await post(here.address, GOOD + bytes(size))
            assert (answer.status, answer.body["cause"]) == (200, "overload")
            answer = await post(strict.address, GOOD + bytes(size))
            assert (answer.status, answer.body["cause"]) == (503, "overload")


@pytest.mark.parametrize("code", ["CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED", "UNIMPLEMENTED"])
async def test_whatever_inference_ends_a_call_with_is_an_answer(code: str, start: Start) -> None:
    async def ended(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        await context.abort(grpc.StatusCode[code], "no")

    async with scripted(ended) as (target, _):
        answer = await post((await start(target)).address, GOOD)
        assert (answer.status, answer.body["cause"]) == (200, "error")


async def test_scores_that_cannot_be_judged_are_an_error(start: Start) -> None:
    async def odd(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        return scores(0.1)

    async with scripted(odd) as (target, _):
        answer = await post((await start(target)).address, GOOD)
        assert (answer.status, answer.body["cause"]) == (200, "error")


async def test_an_uploader_that_stalls_is_answered_within_the_budget(start: Start) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield GOOD[:100]
        await asyncio.Event().wait()

    async with scripted(accept) as (target, _):
        here = await start(target, "--time-budget", "1")
        answer = await post(here.address, stalling())
        assert (answer.status, answer.body["cause"]) == (200, "deadline")


async def test_a_slow_body_hides_no_other_cause(start: Start) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield GOOD[:100]
        await asyncio.Event().wait()

    async with scripted(full) as (target, _):
        flags = ("--time-budget", "1", "--on-overload", "reject")
        answer = await post((await start(target, *flags)).address, stalling())
        assert (answer.status, answer.body["cause"]) == (503, "overload")


@pytest.mark.parametrize("body_is_whole", [True, False])
async def test_a_client_that_hangs_up_cancels_its_call(body_is_whole: bool, start: Start) -> None:
    async with scripted(never) as (target, service):
        here = await start(target)

        async def body() -> AsyncIterator[bytes]:
            yield GOOD
            if not body_is_whole:
                await asyncio.Event().wait()

        posting = asyncio.create_task(post(here.address, body()))
        await asyncio.wait_for(service.began.wait(), 10)
        posting.cancel()
        await asyncio.wait_for(service.cancelled.wait(), 10)
        service.behaviour = accept
        assert (await post(here.address, GOOD)).body["cause"] == "policy"


async def test_a_body_is_read_no_faster_than_inference_takes_it(start: Start) -> None:
    total, sent = 30 * MIB, 0
    moved, listening = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < total:
            sent += 64 * 1024
            moved.set()
            yield bytes(64 * 1024)

    async def until_nothing_moves() -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                moved.clear()
                await asyncio.wait_for(moved.wait(), 1)

    async def late(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await listening.wait()
        return await accept(messages, context)

    async with scripted(late) as (target, service):
        here = await start(target, "--time-budget", "60")
        posting = asyncio.create_task(post(here.address, body()))
        await asyncio.wait_for(service.began.wait(), 10)
        await until_nothing_moves()
        # What the sockets and the flow-control windows between the three processes hold.
        assert sent < total / 2
        listening.set()
        assert (await posting).body["cause"] == "policy"
        assert sent == total


async def test_another_model_than_the_policys_judges_nothing(start: Start) -> None:
    other = scoring_pb2.ModelIdentity(name="other", weights_digest="sha256:1")
    async with scripted(accept, other) as (target, _):
        here = await start(target)
        status, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
        assert status == 503
        assert json.loads(body)["components"]["policy"] == (
            "the policy is for model demo, inference has other"
        )


async def test_a_policy_that_inference_would_refuse_is_not_ready(
    start: Start, tmp_path: Path
) -> None:
    policy = (Path(__file__).parents[2] / "policies" / "demo.toml").read_text()
    (tmp_path / "p.toml").write_text(policy.replace("a triangle", "a triangle " * 20))
    async with scripted(accept) as (target, _):
        here = await start(target, "--policy", str(tmp_path / "p.toml"))
        status, body = await asyncio.to_thread(fetch, f"http://{here.address}/readyz")
        assert status == 503
        assert "characters in a prompt, inference takes 100" in body


async def raw(address: str, *parts: bytes, pause: float = 0) -> tuple[bytes, float]:
    """Writes bytes with pauses between; what comes back, and when, from the first byte on."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    started = time.monotonic()
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause)
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 20)
    writer.close()
    return answer, time.monotonic() - started


REQUEST = b"POST /api/v1/scan/IPADDR HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


async def test_the_budget_begins_with_the_first_byte_of_the_headers(start: Start) -> None:
    async with scripted(never) as (target, _):
        here = await start(target, "--time-budget", "3")
        end = b"Content-Length: 3\r\n\r\nabc"
        answer, seconds = await raw(here.address, REQUEST, b"X: y\r\n", end, pause=0.5)
        assert b'"deadline"' in answer
        assert seconds < 3


async def test_headers_that_do_not_end_are_given_up_within_the_budget(start: Start) -> None:
    async with scripted(accept) as (target, _):
        here = await start(target, "--time-budget", "2")
        answer, seconds = await raw(here.address, REQUEST)
        assert b"the headers took too long" in answer
        assert seconds < 2


async def test_what_is_no_http_is_answered_and_headers_are_bounded(start: Start) -> None:
    async with scripted(accept) as (target, _):
        here = await start(target)
        chunked = REQUEST + b"Transfer-Encoding: chunked\r\n\r\nthis is no chunk\r\n"
        for request in (b"nonsense\r\n\r\n", REQUEST + b"X: " + bytes(100_000), chunked):
            answer, _ = await raw(here.address, request)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b'"malformed_request"' in answer
        assert (await post(here.address, GOOD)).status == 200


async def test_trailers_are_no_headers_and_are_bounded(start: Start) -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with scripted(accept) as (target, _):
        flags = ("--trusted-proxies", "127.0.0.0/8", "--allowed-networks", "192.0.2.1")
        here = await start(target, *flags)
        for forwarded, status in ((b"192.0.2.1", 200), (b"198.51.100.1", 401)):
            request = REQUEST + b"X-Forwarded-For: " + forwarded + b"\r\n" + body
            trailers = b"X-Forwarded-For: 192.0.2.1\r\nContent-Type: text/plain\r\n\r\n"
            answer, _ = await raw(here.address, request + trailers)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
        allowed = REQUEST + b"X-Forwarded-For: 192.0.2.1\r\n" + body
        for endless in (b"X: " + b"y" * 1_000_000, b"X: y\r\n" * 100_000):
            answer, _ = await raw(here.address, allowed + endless)
            assert b"the headers are too large" in answer


async def test_who_offers_another_protocol_loses_no_body(start: Start) -> None:
    offer = REQUEST + b"Connection: Upgrade, HTTP2-Settings\r\nUPGRADE: h2c\r\n"
    chunked = offer + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    sized = offer + b"Content-Length: 3\r\n\r\nabc"
    probe = b"GET /livez HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    data = chunked + probe + sized + last
    async with scripted(accept) as (target, _):
        here = await start(target, "--time-budget", "5")
        host, port = here.address.split(":")
        for step in (len(data), 100, 1):
            reader, writer = await asyncio.open_connection(host, int(port))
            for at in range(0, len(data), step):
                writer.write(data[at : at + step])
                await writer.drain()
            answers = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            assert answers.count(b"HTTP/1.1 200 ") == answers.count(b"HTTP/1.1 ") == 4
            assert answers.endswith(b"ok\n")
        answer, seconds = await raw(here.address, offer, b"Content-Length: 3\r\n\r\nab", pause=1)
        assert b'"deadline"' in answer
        assert seconds < 5  # from the first byte that came
        answer, _ = await raw(here.address, b"CONNECT here:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"malformed_request"' in answer


async def test_secrets_open_from_anywhere_and_only_they_do(start: Start) -> None:
    async with scripted(accept) as (target, _):
        flags = ("--client-secrets", "lemmy:0123456789abcdef", "--allowed-networks", "10.0.0.0/8")
        here = await start(target, *flags)
        answer = await post(here.address, GOOD, path="/api/v1/scan/0123456789abcdef?x=1")
        assert answer.status == 200
        assert (await post(here.address, GOOD)).status == 401
        wait_until(lambda: "client=lemmy" in here.output(), "the decision in the log", 5)
        assert "0123456789abcdef" not in here.output()


async def test_unscanned_uploads_are_counted(start: Start) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    admin = f"127.0.0.1:{free_port()}"
    here = await start(nowhere, "--admin-listen", admin)
    for _ in range(3):
        await post(here.address, GOOD)
    _, page = await asyncio.to_thread(fetch, f"http://{admin}/metrics")
    assert 'imagesafety_unscanned_total{cause="unavailable"} 3.0' in page
    assert "unscanned=True" in here.output()


async def test_sigterm_lets_running_uploads_finish(start: Start) -> None:
    release = asyncio.Event()
    begun = asyncio.Event()

    async def slow(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        begun.set()
        await release.wait()
        return scores(0, 0, 0, 0)

    async with scripted(slow) as (target, _):
        here = await start(target)
        posting = asyncio.create_task(post(here.address, GOOD))
        await begun.wait()
        here.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: "stopping" in here.output(), "SIGTERM", 10)
        release.set()
        assert (await posting).status == 200
        assert await asyncio.to_thread(here.process.wait, 20) == 0


class Load:
    """Clients that post the same picture over and over, and the answers that they got."""

    def __init__(self, address: str, clients: int) -> None:
        self._address = address
        self._changed = asyncio.Condition()
        self._tasks = [asyncio.create_task(self._post()) for _ in range(clients)]
        self.answers: list[Answer] = []
        self.longest = 0.0

    async def _post(self) -> None:
        while True:
            started = time.monotonic()
            answer = await post(self._address, BAD)
            self.longest = max(self.longest, time.monotonic() - started)
            async with self._changed:
                self.answers.append(answer)
                self._changed.notify_all()

    async def until_next_is(self, status: int) -> None:
        """Waits for an answer with this status from now on."""
        seen = len(self.answers)
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(
                lambda: any(answer.status == status for answer in self.answers[seen:])
            )

    async def stop(self) -> None:
        """Ends the clients; raises what went wrong with one of them."""
        failed = [task for task in self._tasks if task.done()]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in failed:
            task.result()


async def test_up_survives_the_death_of_inference_under_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every upload is answered within its budget, and scoring resumes."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("IMAGESAFETY_GATEWAY_LISTEN", address)
    monkeypatch.setenv("IMAGESAFETY_GATEWAY_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("IMAGESAFETY_GATEWAY_REPEATS", "false")  # else they need no inference
    monkeypatch.setenv("IMAGESAFETY_GATEWAY_ADMIN_LISTEN", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("IMAGESAFETY_INFERENCE_LISTEN", f"127.0.0.1:{free_port()}")
    command = ["imagesafety.command", "up"]
    ready = lambda: fetch(f"http://{address}/readyz")[0] == 200  # noqa: E731
    async with off_loop(running(command, address, ready)) as here:
        old = inference_of(here)
        assert old is not None
        load = Load(address, clients=4)
        await load.until_next_is(406)
        os.kill(old, signal.SIGKILL)
        replaced = lambda: inference_of(here) not in (old, None)  # noqa: E731
        await asyncio.to_thread(wait_until, replaced, "another inference process", 60)
        await load.until_next_is(406)
        await load.stop()
        # One that is back within the time budget may have scored all that waited for it.
        assert {(answer.status, answer.body["cause"]) for answer in load.answers} <= {
            (406, "policy"),
            (200, "unavailable"),
            (200, "deadline"),
        }
        assert load.longest < 8
        family = descendants(here.process.pid)
        assert await asyncio.to_thread(here.stop) == 0
        assert not {pid for pid in family if is_alive(pid)}, "no process is left behind"


def inference_of(up: Service) -> int | None:
    family = children(up.process.pid).items()
    return next((pid for pid, line in family if "-m inference" in line), None)


def descendants(pid: int) -> set[int]:
    below = set(children(pid))
    return below.union(*(descendants(child) for child in below))


async def test_up_says_in_one_line_what_it_cannot_use() -> None:
    command = (sys.executable, "-m", "imagesafety.command", "up", "--policy", "/nowhere.toml")
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert errors.decode() == "imagesafety: /nowhere.toml: no such policy file\n"
