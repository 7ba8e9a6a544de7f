"""An inference service that does as it is told: the network's other end, in its worst moods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

Behaviour = Callable[
    [AsyncIterator[scoring_pb2.ScoreImageRequest], "Context"],
    Awaitable[scoring_pb2.ScoreImageResponse],
]
Context = grpc.aio.ServicerContext[scoring_pb2.ScoreImageRequest, scoring_pb2.ScoreImageResponse]
MODEL = scoring_pb2.ModelIdentity(name="demo", weights_digest="sha256:0", backend="scripted")


class ScriptedInference(scoring_pb2_grpc.ScoringServiceServicer):
    def __init__(self, behaviour: Behaviour, model: scoring_pb2.ModelIdentity = MODEL) -> None:
        self.behaviour = behaviour
        self.model = model
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def ScoreImage(  # noqa: N802
        self,
        request_iterator: AsyncIterator[scoring_pb2.ScoreImageRequest],
        context: Context,
    ) -> scoring_pb2.ScoreImageResponse:
        self.began.set()
        try:
            return await self.behaviour(request_iterator, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def ScoreImages(self, request_iterator: object, context: object) -> NoReturn:  # noqa: N802
        raise NotImplementedError

    async def DescribeModel(  # noqa: N802
        self, request: scoring_pb2.DescribeModelRequest, context: object
    ) -> scoring_pb2.DescribeModelResponse:
        limits = scoring_pb2.Limits(max_concepts=100, max_prompts=100, max_prompt_characters=100)
        return scoring_pb2.DescribeModelResponse(model=self.model, limits=limits)


@contextlib.asynccontextmanager
async def scripted(
    behaviour: Behaviour, model: scoring_pb2.ModelIdentity = MODEL, port: int = 0
) -> AsyncIterator[tuple[str, ScriptedInference]]:
    """Serves; yields the address and the service."""
    server = grpc.aio.server()
    service = ScriptedInference(behaviour, model)
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(service, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        await server.stop(0)


def scores(*similarities: float) -> scoring_pb2.ScoreImageResponse:
    view = scoring_pb2.View(similarities=similarities)
    return scoring_pb2.ScoreImageResponse(scores=scoring_pb2.ImageScores(views=[view], model=MODEL))


async def read_all(messages: AsyncIterator[scoring_pb2.ScoreImageRequest]) -> int:
    """Reads the call's messages; the number of image bytes."""
    return sum([len(message.chunk) async for message in messages])


async def full(
    messages: AsyncIterator[scoring_pb2.ScoreImageRequest], context: Context
) -> scoring_pb2.ScoreImageResponse:
    """Refuses before the image has come, as a service does that has no room."""
    await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


async def refuse(context: Context, code: grpc.StatusCode, reason: str) -> NoReturn:
    """Ends a call with a reason of scoring.proto."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="imagesafety"))
    status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, reason, trailing_metadata=trailer)
