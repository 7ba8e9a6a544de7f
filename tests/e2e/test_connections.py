"""Connections that age, pings, and what a client is told of the load."""

import asyncio

import grpc
from google.protobuf.duration_pb2 import Duration

from inference.orca import orca_pb2, orca_pb2_grpc
from tests.e2e.calls import Caller, bulk_answers, bulk_header, piece
from tests.e2e.processes import inference, off_loop
from tests.media import drawn, still

BAD = still(drawn(("red", "triangle"), size=100))
OK = grpc.StatusCode.OK


async def test_no_call_fails_while_connections_age() -> None:
    """Nor does a stream that outlives its connection's age."""
    service = inference("--max-connection-age", "0.2")
    async with off_loop(service) as running, Caller(running.address) as caller:
        stream = caller.stub.ScoreImages()
        answers = bulk_answers(stream)
        await stream.write(bulk_header())
        # A connection that was given up goes over IDLE, and is made anew.
        ready, made_anew = grpc.ChannelConnectivity.READY, 0
        states = [ready]

        async def watch() -> None:
            nonlocal made_anew
            while True:
                await caller.channel.wait_for_state_change(states[-1])
                states.append(caller.channel.get_state())
                made_anew += states[-1] is ready

        watching = asyncio.create_task(watch())
        ends, number = [], 0
        while made_anew < 6:
            ends += await asyncio.gather(*(caller.score(BAD) for _ in range(8)))
            number += 1
            await stream.write(piece(str(number), BAD, last=True))
            assert await anext(answers) == (str(number), "scores")
        watching.cancel()
        assert {end.code for end in ends} == {OK}
        await stream.done_writing()
        assert [answer async for answer in answers] == []


async def test_a_replica_tells_its_load() -> None:
    service = inference("--max-connection-age", "0")
    async with off_loop(service) as running, Caller(running.address) as caller:
        stub = orca_pb2_grpc.OpenRcaServiceStub(caller.channel)
        reports = stub.StreamCoreMetrics(orca_pb2.OrcaLoadReportRequest())
        idle = await reports.read()
        assert isinstance(idle, orca_pb2.OrcaLoadReport)
        assert idle.application_utilization == idle.rps_fractional == 0
        ends = await asyncio.gather(*(caller.score(BAD) for _ in range(40)))
        assert {end.code for end in ends} == {OK}
        fresh = stub.StreamCoreMetrics(orca_pb2.OrcaLoadReportRequest())
        busy = await fresh.read()
        assert isinstance(busy, orca_pb2.OrcaLoadReport)
        assert 0 < busy.rps_fractional <= 20
        assert 0 < busy.application_utilization <= 2
        assert 0 < busy.named_metrics["busy"] <= 1
        assert busy.eps == 0


async def test_a_client_may_ping_every_second() -> None:
    """To notice a replica that hangs, also while nothing is on its way."""
    options = [("grpc.keepalive_time_ms", 1100), ("grpc.http2.max_pings_without_data", 0)]
    service = inference("--max-connection-age", "0")
    async with off_loop(service) as running:
        channel = grpc.aio.insecure_channel(running.address, options=options)
        stub = orca_pb2_grpc.OpenRcaServiceStub(channel)
        seldom = orca_pb2.OrcaLoadReportRequest(report_interval=Duration(seconds=7))
        reports = stub.StreamCoreMetrics(seldom)
        for _ in range(2):  # a server that minds ends the connection at the third ping
            assert isinstance(await reports.read(), orca_pb2.OrcaLoadReport)
        await channel.close()
