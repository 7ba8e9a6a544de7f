"""Replicas that treat bulk work as they are told, in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from tests.e2e.scripted_inference import MODEL, refuse

Request = scoring_pb2.ScoreImagesRequest
Response = scoring_pb2.ScoreImagesResponse
Context = grpc.aio.ServicerContext[Request, Response]
Behaviour = Callable[["Replica", bytes, Context], Awaitable[Response]]
"""Answers an image; what it raises, or aborts, ends the stream."""

LIMITS = scoring_pb2.Limits(
    max_message_bytes=2 * 1024 * 1024, max_image_bytes=8 * 1024 * 1024, max_concepts=100
)


class Replica(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers each image as `behaviour` says, several of a stream at once."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.header: scoring_pb2.ScoreImagesHeader | None = None
        self.came: Counter[bytes] = Counter()
        self.streams = self.open_streams = 0
        self.changed = asyncio.Condition()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(condition)

    async def ScoreImages(  # noqa: N802
        self, request_iterator: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        answers: asyncio.Queue[Response | BaseException | None] = asyncio.Queue()
        self.streams += 1
        self.open_streams += 1
        reading = asyncio.create_task(self._read(request_iterator, context, answers))
        try:
            while (answer := await answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            reading.cancel()
            self.open_streams -= 1
            # Not awaited: a call that is cancelled must not wait here.
            self._telling = asyncio.create_task(self._tell())

    async def _read(
        self,
        requests: AsyncIterator[Request],
        context: Context,
        answers: asyncio.Queue[Response | BaseException | None],
    ) -> None:
        pieces: dict[str, bytes] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                async for request in requests:
                    match request.WhichOneof("part"):
                        case "header":
                            self.header = request.header
                            continue
                        case "image":
                            name, data = request.image.request_id, request.image.data
                        case "chunk":
                            name = request.chunk.request_id
                            data = pieces.pop(name, b"") + request.chunk.data
                            if not request.chunk.last:
                                pieces[name] = data
                                continue
                    self.came[data] += 1
                    await self._tell()
                    tasks.create_task(self._answer(name, data, context, answers))
        except* Exception as group:
            answers.put_nowait(group.exceptions[0])
        answers.put_nowait(None)

    async def _answer(
        self,
        name: str,
        data: bytes,
        context: Context,
        answers: asyncio.Queue[Response | BaseException | None],
    ) -> None:
        response = await self.behaviour(self, data, context)
        response.request_id = name
        answers.put_nowait(response)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def ScoreImage(self, request_iterator: object, context: object) -> NoReturn:  # noqa: N802
        raise NotImplementedError

    async def DescribeModel(  # noqa: N802
        self, request: scoring_pb2.DescribeModelRequest, context: object
    ) -> scoring_pb2.DescribeModelResponse:
        return scoring_pb2.DescribeModelResponse(model=MODEL, limits=LIMITS)


@contextlib.asynccontextmanager
async def replica(
    behaviour: Behaviour, kind: type[Replica] = Replica
) -> AsyncIterator[tuple[str, Replica, grpc.aio.Server]]:
    """Serves; yields the address, the service, and its server to be stopped."""
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 2 * 1024 * 1024),))
    service = kind(behaviour)
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", service, server
    finally:
        await server.stop(0)


def scores(value: float = 0.0, partial_reason: str = "") -> Response:
    view = scoring_pb2.View(similarities=[value], embedding=[0.5, 0.25])
    return Response(
        scores=scoring_pb2.ImageScores(
            views=[view], model=MODEL, partial=partial_reason, partial_reason=partial_reason
        )
    )


def error(code: grpc.StatusCode, reason: str) -> Response:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="imagesafety"))
    return Response(error=status_pb2.Status(code=code.value[0], message=reason, details=[detail]))


async def score(service: Replica, data: bytes, context: Context) -> Response:
    """What every sound replica does: the similarity is the number that the image is."""
    return scores(float(data) if data.isdigit() else len(data))


async def never(service: Replica, data: bytes, context: Context) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


def first(times: int, response: Response) -> Behaviour:
    """An answer for the first times that an image comes; then it is scored."""

    async def behaviour(service: Replica, data: bytes, context: Context) -> Response:
        if service.came[data] > times:
            return await score(service, data, context)
        answer = Response()
        answer.CopyFrom(response)
        return answer

    return behaviour


def breaks_stream(
    poison: Callable[[Replica, bytes], bool], code: grpc.StatusCode, reason: str = ""
) -> Behaviour:
    """Ends the whole stream for some images."""

    async def behaviour(service: Replica, data: bytes, context: Context) -> Response:
        if poison(service, data):
            await refuse(context, code, reason)  # type: ignore[arg-type]
        return await score(service, data, context)

    return behaviour
