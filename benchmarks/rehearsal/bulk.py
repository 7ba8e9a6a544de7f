"""Bulk clients: streams of `ScoreImages` that are kept full."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc

from benchmarks.rehearsal.pictures import MEDIA_TYPE, Pictures
from imagesafety.client import ConceptSet
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc


@dataclass
class BulkClient:
    """A stream for a client of this name, and how its images fared."""

    client: str
    scored: int = 0
    failed: int = 0


@contextlib.asynccontextmanager
async def bulk_client(
    target: str, client: str, pictures: Pictures, concepts: ConceptSet, at_once: int
) -> AsyncIterator[BulkClient]:
    """Keeps `at_once` images on a stream while the block runs."""
    counts = BulkClient(client)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: scoring_pb2_grpc.ScoringServiceAsyncStub
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        running = asyncio.create_task(_stream(stub, counts, pictures, concepts, at_once))
        try:
            yield counts
            if running.done():
                running.result()  # it should still run
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _stream(
    stub: scoring_pb2_grpc.ScoringServiceAsyncStub,
    counts: BulkClient,
    pictures: Pictures,
    concepts: ConceptSet,
    at_once: int,
) -> None:
    call = stub.ScoreImages()
    try:
        await call.write(_header(counts.client, concepts))
        numbers = itertools.count()
        for number in itertools.islice(numbers, at_once):
            await call.write(_image(pictures, number))
        async for response in call:
            if response.WhichOneof("outcome") == "scores":
                counts.scored += 1
            else:
                counts.failed += 1
            await call.write(_image(pictures, next(numbers)))
    finally:
        call.cancel()


async def batch_seconds(
    target: str, pictures: Pictures, concepts: ConceptSet, size: int, times: int
) -> list[float]:
    """How long an idle replica takes for `size` images that come at once, several times."""
    taken = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub: scoring_pb2_grpc.ScoringServiceAsyncStub
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        call = stub.ScoreImages()
        await call.write(_header("batch", concepts))
        for start in range(0, size * times, size):
            begin = time.monotonic()
            await _write_all(call, [_image(pictures, start + n) for n in range(size)])
            for _ in range(size):
                await call.read()
            taken.append(time.monotonic() - begin)
        await call.done_writing()
    return sorted(taken)


async def _write_all(
    call: grpc.aio.StreamStreamCall[
        scoring_pb2.ScoreImagesRequest, scoring_pb2.ScoreImagesResponse
    ],
    requests: Sequence[scoring_pb2.ScoreImagesRequest],
) -> None:
    for request in requests:
        await call.write(request)


def _header(client: str, concepts: ConceptSet) -> scoring_pb2.ScoreImagesRequest:
    options = scoring_pb2.ScoringOptions(concepts=concepts.messages, client=client)
    return scoring_pb2.ScoreImagesRequest(header=scoring_pb2.ScoreImagesHeader(options=options))


def _image(pictures: Pictures, number: int) -> scoring_pb2.ScoreImagesRequest:
    image = scoring_pb2.WholeImage(
        request_id=str(number), media_type=MEDIA_TYPE, data=pictures.of(number)[1]
    )
    return scoring_pb2.ScoreImagesRequest(image=image)
