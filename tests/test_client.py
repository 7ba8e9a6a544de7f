"""The streaming client, against a service that ends calls early."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from imagesafety.client import ConceptSet, ScoringClient, ScoringError
from imagesafety.v1 import scoring_pb2
from tests.e2e.scripted_inference import full, scripted


async def test_the_servers_status_survives_a_write_that_fails_because_of_it() -> None:
    """grpc.aio alone reports INTERNAL for some of these; see imagesafety.server_status."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(64 * 1024)

    async with scripted(full) as (target, _), ScoringClient(target) as client:
        for _ in range(200):
            with pytest.raises(ScoringError) as caught:
                await client.score_image(chunks(), concepts=ConceptSet([]), timeout=30)
            assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.reason == "QUEUE_FULL"


@pytest.mark.parametrize("last_chunk", [b"", b"x"])
async def test_a_call_that_ended_unnoticed_while_the_loop_was_held_has_its_own_status(
    last_chunk: bytes,
) -> None:
    """grpc.aio raises an error of its internals when the half-close comes too late."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        await service.began.wait()
        time.sleep(0.2)  # noqa: ASYNC251 - past the deadline, and grpc.aio can't hear of it
        if last_chunk:
            yield last_chunk

    async def never(messages: object, context: object) -> scoring_pb2.ScoreImageResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with scripted(never) as (target, service), ScoringClient(target) as client:
        with pytest.raises(ScoringError) as caught:
            await client.score_image(chunks(), concepts=ConceptSet([]), timeout=0.1)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_large_chunks_are_sent_in_messages_that_every_server_takes() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(10 * 1024 * 1024)

    async with scripted(full) as (target, _), ScoringClient(target) as client:
        with pytest.raises(ScoringError) as caught:
            await client.score_image(chunks(), concepts=ConceptSet([]), timeout=30)
        assert caught.value.reason == "QUEUE_FULL"


@pytest.mark.parametrize("image_is_whole", [True, False])
async def test_closing_the_client_is_an_error_of_its_calls_and_no_cancellation(
    image_is_whole: bool,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        if not image_is_whole:
            await asyncio.Event().wait()

    async def never(messages: object, context: object) -> scoring_pb2.ScoreImageResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with scripted(never) as (target, service):
        client = ScoringClient(target)
        scoring = asyncio.create_task(
            client.score_image(chunks(), concepts=ConceptSet([]), timeout=30)
        )
        await asyncio.wait_for(service.began.wait(), 10)
        await client.close()
        with pytest.raises(ScoringError) as caught:
            await asyncio.wait_for(scoring, 10)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_slow_network_is_no_outage() -> None:
    """Connecting may take longer than the pause before the next attempt."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    async with (
        scripted(full) as (target, _),
        delaying_proxy(target, 0.3) as slow,
        ScoringClient(slow) as client,
    ):
        with pytest.raises(ScoringError) as caught:
            await client.score_image(chunks(), concepts=ConceptSet([]), timeout=30)
    assert caught.value.reason == "QUEUE_FULL"


@contextlib.asynccontextmanager
async def delaying_proxy(target: str, seconds: float) -> AsyncIterator[str]:
    """A TCP proxy that brings everything later, one way and the other."""
    host, port = target.split(":")
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(seconds)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        tasks.add(asyncio.create_task(copy(reader, there_writer)))
        tasks.add(asyncio.create_task(copy(there_reader, writer)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
