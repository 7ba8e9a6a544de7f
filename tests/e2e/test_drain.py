"""SIGTERM: no new calls, running ones finish, and nothing that never ends keeps the process."""

import asyncio
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from inference.orca import orca_pb2, orca_pb2_grpc
from tests.e2e.calls import RED, Caller, Request, bulk_answers, bulk_header, ended, header, piece
from tests.e2e.processes import Service, inference, off_loop, wait_until
from tests.media import drawn, still

BAD = still(drawn(("red", "triangle"), size=100))

CODE = grpc.StatusCode
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG = ("--drain-seconds", "120")  # longer than a test may take


async def told_to_stop(service: Service) -> None:
    service.process.send_signal(signal.SIGTERM)
    drains = lambda: "draining" in service.output()  # noqa: E731
    await asyncio.to_thread(wait_until, drains, "SIGTERM", 20)


async def test_streams_that_never_end_end_with_the_service() -> None:
    async with off_loop(inference(*LONG)) as service, Caller(service.address) as caller:
        health = health_pb2_grpc.HealthStub(caller.channel)
        names = ("", "imagesafety.v1.ScoringService", "liveness", "unknown")
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in names]  # type: ignore[attr-defined]
        first = [(await watch.read()).status for watch in watches]
        assert first == [1, 1, 1, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]
        reports = orca_pb2_grpc.OpenRcaServiceStub(caller.channel).StreamCoreMetrics(
            orca_pb2.OrcaLoadReportRequest()
        )
        await reports.read()
        reflection = reflection_pb2_grpc.ServerReflectionStub(caller.channel)  # type: ignore[arg-type]
        idle = reflection.ServerReflectionInfo()  # type: ignore[operator]
        await idle.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await idle.read()
        bulk = caller.stub.ScoreImages()
        await bulk.write(bulk_header())
        await bulk.write(piece("only", BAD, last=True))
        assert await anext(bulk_answers(bulk)) == ("only", "scores")
        await told_to_stop(service)
        assert await bulk.code() is CODE.UNAVAILABLE
        assert await asyncio.to_thread(service.process.wait, 60) == 0
        for watch in watches[:2]:
            assert (await watch.read()).status == NOT_SERVING
        assert await watches[2].read() == grpc.aio.EOF


async def test_running_calls_finish_and_further_images_are_refused() -> None:
    async with off_loop(inference(*LONG)) as service, Caller(service.address) as caller:
        half = len(BAD) // 2
        parts = [header(), Request(chunk=BAD[:half])]
        calls = [caller.stub.ScoreImage() for _ in range(40)]
        for call in calls:
            for part in parts:
                await call.write(part)
        stream = caller.stub.ScoreImages()
        answers = bulk_answers(stream)
        await stream.write(bulk_header())
        await stream.write(piece("before", BAD, last=True))
        assert await anext(answers) == ("before", "scores")
        await stream.write(piece("begun", BAD[:half]))
        await told_to_stop(service)

        await stream.write(piece("after", BAD, last=True))
        assert await anext(answers) == ("after", "DRAINING")
        await stream.write(piece("begun", BAD[half:], last=True))
        assert await anext(answers) == ("begun", "DRAINING")
        await stream.done_writing()
        assert [answer async for answer in answers] == []
        ends = await asyncio.gather(*(ended(call, [Request(chunk=BAD[half:])]) for call in calls))
        assert {end.code for end in ends} == {CODE.OK}
        assert min(end.similarities[0] for end in ends) > RED
        async with Caller(service.address) as late:
            assert (await late.score(BAD)).code is CODE.UNAVAILABLE
        assert await asyncio.to_thread(service.process.wait, 60) == 0


async def test_what_does_not_finish_is_broken_off() -> None:
    async with off_loop(inference("--drain-seconds", "0.5")) as service:
        async with Caller(service.address) as caller:
            call = caller.stub.ScoreImage()
            await call.write(header())
            stream = caller.stub.ScoreImages()
            answers = bulk_answers(stream)
            await stream.write(bulk_header())
            await stream.write(piece("before", BAD, last=True))
            assert await anext(answers) == ("before", "scores")
            await stream.write(piece("begun", BAD[:10]))
            await told_to_stop(service)
            end = await ended(call, [], half_closes=False)
            assert (end.code, end.reason) == (CODE.UNAVAILABLE, "DRAINING")
            with pytest.raises(grpc.aio.AioRpcError) as broken_off:
                await anext(answers)
            assert broken_off.value.code() is CODE.UNAVAILABLE
        assert await asyncio.to_thread(service.process.wait, 60) == 0
