"""The streaming client, against a service that ends calls early."""

from collections.abc import AsyncIterator

import grpc
import pytest

from imagesafety.client import ConceptSet, ScoringClient, ScoringError
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


async def test_large_chunks_are_sent_in_messages_that_every_server_takes() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(10 * 1024 * 1024)

    async with scripted(full) as (target, _), ScoringClient(target) as client:
        with pytest.raises(ScoringError) as caught:
            await client.score_image(chunks(), concepts=ConceptSet([]), timeout=30)
        assert caught.value.reason == "QUEUE_FULL"
