"""Fills a real replica: calls that bring no image hold all its places."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

_SETTLED_SECONDS = 0.5
_CONCEPT = scoring_pb2.Concept(
    name="any", prompts=scoring_pb2.PromptSet(prompts=[scoring_pb2.Prompt(text="anything")])
)


@contextlib.asynccontextmanager
async def occupied(address: str, places: int) -> AsyncIterator[None]:
    """Keeps trying to hold all places while the block runs, each for a client of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: scoring_pb2_grpc.ScoringServiceAsyncStub
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)

        async def hold(client: str) -> None:
            options = scoring_pb2.ScoringOptions(concepts=[_CONCEPT], client=client)
            header = scoring_pb2.ScoreImageHeader(options=options)
            while True:
                call = stub.ScoreImage()
                try:
                    await call.write(scoring_pb2.ScoreImageRequest(header=header))
                    await call
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await asyncio.sleep(_SETTLED_SECONDS / 10)
                finally:
                    call.cancel()

        holding = [asyncio.create_task(hold(f"holder {number}")) for number in range(places)]
        try:
            yield
        finally:
            for task in holding:
                task.cancel()
            await asyncio.gather(*holding, return_exceptions=True)
