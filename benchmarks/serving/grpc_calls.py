"""Sends files over gRPC: a call for each, or all on one stream. As light as a client can be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc

from benchmarks.serving.material import CONCEPTS
from benchmarks.serving.measuring import Call
from imagesafety.v1 import scoring_pb2

CHUNK_BYTES = 64 * 1024  # what scoring.proto recommends
CALL_SECONDS = 600.0
SERVICE = "imagesafety.v1.ScoringService"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", 64 * 1024 * 1024),)


class WrongAnswerError(Exception):
    """An answer that is no score."""


def options() -> scoring_pb2.ScoringOptions:
    """What is asked for: the concepts of the benchmark."""
    return scoring_pb2.ScoringOptions(
        concepts=[
            scoring_pb2.Concept(
                name=concept.name,
                prompts=scoring_pb2.PromptSet(
                    prompts=[scoring_pb2.Prompt(text=text) for text in concept.prompts]
                ),
            )
            for concept in CONCEPTS
        ]
    )


@contextlib.asynccontextmanager
async def score_image(target: str, files: Sequence[bytes]) -> AsyncIterator[Call]:
    """One `ScoreImage` call for each file."""
    bodies = [list(score_image_messages(data)) for data in files]
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        method: grpc.aio.StreamUnaryMultiCallable[bytes, scoring_pb2.ScoreImageResponse]
        method = channel.stream_unary(
            f"/{SERVICE}/ScoreImage",
            response_deserializer=scoring_pb2.ScoreImageResponse.FromString,
        )

        async def call(number: int) -> None:
            answer = await method(iter(bodies[number % len(bodies)]), timeout=CALL_SECONDS)
            _check(answer.scores)

        yield call


@contextlib.asynccontextmanager
async def count_bytes(target: str, files: Sequence[bytes]) -> AsyncIterator[Call]:
    """The same messages to a handler that only counts them; the answer is the count."""
    bodies = [list(score_image_messages(data)) for data in files]
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes]
        method = channel.stream_unary(f"/{SERVICE}/ScoreImage")

        async def call(number: int) -> None:
            body = bodies[number % len(bodies)]
            answer = await method(iter(body), timeout=CALL_SECONDS)
            if int(answer) != sum(map(len, body)):
                raise WrongAnswerError(f"{answer!r} bytes were counted")

        yield call


@contextlib.asynccontextmanager
async def unary(target: str, files: Sequence[bytes]) -> AsyncIterator[Call]:
    """Each file in the one message of a unary call, to a handler that counts its bytes."""
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(f"/{SERVICE}/Unary")

        async def call(number: int) -> None:
            body = files[number % len(files)]
            answer = await method(body, timeout=CALL_SECONDS)
            if int(answer) != len(body):
                raise WrongAnswerError(f"{answer!r} bytes were counted")

        yield call


@contextlib.asynccontextmanager
async def score_images(target: str, files: Sequence[bytes]) -> AsyncIterator[Call]:
    """All files on one `ScoreImages` stream, each in one message."""
    waiting: dict[str, asyncio.Future[None]] = {}
    names = itertools.count()
    writing = asyncio.Lock()
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, scoring_pb2.ScoreImagesResponse]
        method = channel.stream_stream(
            f"/{SERVICE}/ScoreImages",
            response_deserializer=scoring_pb2.ScoreImagesResponse.FromString,
        )
        stream = method()
        header = scoring_pb2.ScoreImagesHeader(options=options())
        await stream.write(scoring_pb2.ScoreImagesRequest(header=header).SerializeToString())

        async def read() -> None:
            async for response in stream:
                future = waiting.pop(response.request_id)
                try:
                    if response.WhichOneof("outcome") == "error":
                        raise WrongAnswerError(response.error.message)
                    _check(response.scores)
                except WrongAnswerError as error:
                    future.set_exception(error)
                else:
                    future.set_result(None)

        async def call(number: int) -> None:
            name = str(next(names))
            image = scoring_pb2.WholeImage(request_id=name, data=files[number % len(files)])
            message = scoring_pb2.ScoreImagesRequest(image=image).SerializeToString()
            waiting[name] = asyncio.get_running_loop().create_future()
            async with writing:
                await stream.write(message)
            async with asyncio.timeout(CALL_SECONDS):
                await waiting[name]

        reading = asyncio.create_task(read())
        try:
            yield call
            await stream.done_writing()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def model_infer(target: str, requests: Sequence[bytes]) -> AsyncIterator[Call]:
    """A call of Triton's for each of these ready requests."""
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(MODEL_INFER)

        async def call(number: int) -> None:
            answer = await method(requests[number % len(requests)], timeout=CALL_SECONDS)
            if len(answer) < 4 * len(CONCEPTS):
                raise WrongAnswerError(f"{answer!r}")

        yield call


def score_image_messages(data: bytes) -> Iterator[bytes]:
    """What a client sends that has a file scored."""
    header = scoring_pb2.ScoreImageHeader(options=options(), media_type="image/jpeg")
    yield scoring_pb2.ScoreImageRequest(header=header).SerializeToString()
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        yield scoring_pb2.ScoreImageRequest(chunk=chunk).SerializeToString()


def _check(scores: scoring_pb2.ImageScores) -> None:
    counts = [len(view.similarities) for view in scores.views]
    if counts != [len(CONCEPTS)] or scores.partial:
        raise WrongAnswerError(f"{counts} similarities, {scores.partial or 'not partial'}")
