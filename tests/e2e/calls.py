"""Calls of the inference service, good ones and bad ones, and how they ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from imagesafety.server_status import ServerStatus
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

Request = scoring_pb2.ScoreImageRequest
Bulk = scoring_pb2.ScoreImagesRequest
Call = grpc.aio.StreamUnaryCall[Request, scoring_pb2.ScoreImageResponse]
PROMPTS = scoring_pb2.PromptSet(prompts=[scoring_pb2.Prompt(text="something red")])
CONCEPTS = [scoring_pb2.Concept(name="red", prompts=PROMPTS)]
RED = 0.107  # similarities of what is red are over this


@dataclass(frozen=True)
class End:
    """How a call ended: `reason` is ErrorInfo's, empty without one."""

    code: grpc.StatusCode
    reason: str = ""
    similarities: tuple[float, ...] = ()


def header(client: str = "") -> Request:
    options = scoring_pb2.ScoringOptions(concepts=CONCEPTS, client=client)
    return Request(header=scoring_pb2.ScoreImageHeader(options=options))


def bulk_header() -> Bulk:
    options = scoring_pb2.ScoringOptions(concepts=CONCEPTS)
    return Bulk(header=scoring_pb2.ScoreImagesHeader(options=options))


def piece(name: str, data: bytes, *, last: bool = False) -> Bulk:
    return Bulk(chunk=scoring_pb2.ImageChunk(request_id=name, data=data, last=last))


class Caller:
    """A connection to the service, below ScoringClient."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.stub: scoring_pb2_grpc.ScoringServiceAsyncStub = scoring_pb2_grpc.ScoringServiceStub(
            self.channel
        )

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def score(
        self, data: bytes, *, chunk: int = 64 * 1024, client: str = "", seconds: float = 60
    ) -> End:
        """An honest call."""
        call = self.stub.ScoreImage(timeout=seconds)
        chunks = (data[at : at + chunk] for at in range(0, len(data), chunk))
        return await ended(call, [header(client), *(Request(chunk=some) for some in chunks)])


async def ended(
    call: Call, requests: Iterable[Request], *, pause: float = 0, half_closes: bool = True
) -> End:
    """Sends what is to be sent and waits for the end."""
    status = ServerStatus(call)
    try:
        sending = asyncio.create_task(_send(call, requests, pause, half_closes))
        try:
            scores = (await call).scores
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    except grpc.aio.AioRpcError as error:
        real = status.of(error)
        return End(real.code(), reason_of(rpc_status.from_call(real)))  # type: ignore[arg-type]
    return End(grpc.StatusCode.OK, "", tuple(view.similarities[0] for view in scores.views))


async def _send(call: Call, requests: Iterable[Request], pause: float, half_closes: bool) -> None:
    for request in requests:
        await call.write(request)
        await asyncio.sleep(pause)
    if half_closes:
        await call.done_writing()


def reason_of(status: status_pb2.Status | None) -> str:
    """The reason of a status; empty if it has none."""
    info = error_details_pb2.ErrorInfo()
    if status is not None and status.details and status.details[0].Unpack(info):
        assert info.domain == "imagesafety"
    return str(info.reason)


async def bulk_answers(
    call: grpc.aio.StreamStreamCall[Bulk, scoring_pb2.ScoreImagesResponse],
) -> AsyncIterator[tuple[str, str]]:
    """The answers of a stream: request_id, and the error's reason or `scores`."""
    async for answer in call:
        error = answer.HasField("error")
        yield answer.request_id, reason_of(answer.error) if error else "scores"
