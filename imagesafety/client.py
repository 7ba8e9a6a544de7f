"""A streaming client of the inference service.

Use: `async with ScoringClient("127.0.0.1:50051") as client:` and in it
`scores = await client.score_image(chunks, concepts=concepts, timeout=8.0)`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable, Sequence

import grpc

from imagesafety.attempt_trace import traced_attempt
from imagesafety.channel import ReplicaChannel
from imagesafety.channel import TlsFiles as TlsFiles  # others import it from here
from imagesafety.closed_at_end import ClosedAtEnd
from imagesafety.policy import Band, Concept
from imagesafety.scores import (
    ImageScores,
    ModelDescription,
    ModelIdentity,
    image_scores,
    model_description,
)
from imagesafety.scoring_error import ScoringError as ScoringError  # and this
from imagesafety.scoring_error import error_of_call
from imagesafety.server_status import ServerStatus
from imagesafety.v1 import scoring_pb2

MAX_CHUNK_BYTES = 1024 * 1024  # well under gRPC's default limit of 4 MiB a message


class ConceptSet:
    """Concepts as they travel with a call; made once and used for many."""

    def __init__(self, concepts: Iterable[Concept]) -> None:
        """Raises ValueError for a probe of which the file was not read."""
        self.messages = tuple(map(_message, concepts))


def _message(concept: Concept) -> scoring_pb2.Concept:
    if (probe := concept.probe) is None:
        prompts = [
            scoring_pb2.Prompt(text=prompt.text, weight=prompt.weight) for prompt in concept.prompts
        ]
        return scoring_pb2.Concept(
            name=concept.name, prompts=scoring_pb2.PromptSet(prompts=prompts)
        )
    if probe.vector is None:
        raise ValueError(f"the probe of {concept.name!r} was not read from its file")
    return scoring_pb2.Concept(
        name=concept.name, probe=scoring_pb2.Probe(vector=probe.vector, bias=probe.bias)
    )


def detail(tiles: int, closer_when: Sequence[Band]) -> scoring_pb2.Detail:
    """How closely to look, as a message of scoring.proto."""
    return scoring_pb2.Detail(
        tiles=tiles,
        when=[
            scoring_pb2.SimilarityBand(
                concept=band.concept, at_least=band.at_least, at_most=band.at_most
            )
            for band in closer_when
        ],
    )


class ScoringClient(ClosedAtEnd):
    """The inference service at any gRPC target: each call goes to one of the replicas there.

    Certificates that change in their files are used from then on.
    """

    def __init__(self, target: str, tls: TlsFiles | None = None) -> None:
        """Raises OSError for TLS files that can't be used."""
        self.replicas = ReplicaChannel(target, tls)
        self.model: ModelIdentity | None = None
        """The model that answered last."""

    async def close(self) -> None:
        """Ends calls that still run and closes the connection."""
        await self.replicas.close()

    async def describe_model(self, *, timeout: float) -> ModelDescription:  # noqa: ASYNC109
        """Which model the service has, and its limits. Raises ScoringError."""
        try:
            with self.replicas.stub() as stub:
                answer = await stub.DescribeModel(
                    scoring_pb2.DescribeModelRequest(), timeout=timeout
                )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        description = model_description(answer)
        self.model = description.model
        return description

    async def score_image(
        self,
        chunks: AsyncIterable[bytes],
        *,
        concepts: ConceptSet,
        timeout: float,  # noqa: ASYNC109 - it becomes the deadline that the service sees
        media_type: str = "",
        client: str = "",
        max_frames: int | None = None,
        tiles: int = 1,
        closer_when: Sequence[Band] = (),
        perceptual_hashes: bool = False,
        bulk: bool = False,
    ) -> ImageScores:
        """Scores one image, sending its bytes as `chunks` yields them.

        `client`, `max_frames`, `tiles`, `closer_when` and `perceptual_hashes` are those of
        ScoringOptions in scoring.proto; `bulk` is for what nobody waits for.

        The next chunk is asked for only when the last one was taken by the connection. The call
        may end before `chunks` does. Raises ScoringError, and whatever `chunks` raises, after
        cancelling the call.
        """
        header = scoring_pb2.ScoreImageHeader(
            options=scoring_pb2.ScoringOptions(
                concepts=concepts.messages,
                priority=(scoring_pb2.PRIORITY_BULK if bulk else scoring_pb2.PRIORITY_INTERACTIVE),
                client=client,
                max_frames=max_frames,
                return_perceptual_hashes=perceptual_hashes,
                detail=detail(tiles, closer_when),
            ),
            media_type=media_type,
        )
        with self.replicas.stub() as stub, traced_attempt() as metadata:
            call = stub.ScoreImage(timeout=timeout, metadata=metadata)
            scores = await _finish(call, header, chunks)
        self.model = scores.model
        return scores


async def _finish(
    call: grpc.aio.StreamUnaryCall[scoring_pb2.ScoreImageRequest, scoring_pb2.ScoreImageResponse],
    header: scoring_pb2.ScoreImageHeader,
    chunks: AsyncIterable[bytes],
) -> ImageScores:
    status = ServerStatus(call)
    sending = asyncio.create_task(_send(call, header, chunks))
    answering = asyncio.ensure_future(call)
    try:
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and not sending.cancelled():
            sending.result()  # raises what `chunks` raised
        await asyncio.wait({answering})
        if answering.cancelled():  # not by the caller, whose cancellation would end the wait
            code = grpc.StatusCode.UNAVAILABLE
            raise ScoringError(code, "", "the connection was closed during the call")
        return image_scores(answering.result().scores)
    except grpc.aio.AioRpcError as error:
        raise error_of_call(status.of(error)) from error
    finally:
        sending.cancel()
        call.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


async def _send(
    call: grpc.aio.StreamUnaryCall[scoring_pb2.ScoreImageRequest, scoring_pb2.ScoreImageResponse],
    header: scoring_pb2.ScoreImageHeader,
    chunks: AsyncIterable[bytes],
) -> None:
    """Writes the image; stops quietly when the call is over, whose status tells why."""
    async with contextlib.aclosing(_requests(header, chunks)) as requests:
        async for request in requests:
            if not await accepted(call.write(request)):
                return
    await accepted(call.done_writing())


async def _requests(
    header: scoring_pb2.ScoreImageHeader, chunks: AsyncIterable[bytes]
) -> AsyncGenerator[scoring_pb2.ScoreImageRequest, None]:
    yield scoring_pb2.ScoreImageRequest(header=header)
    async for chunk in chunks:
        for start in range(0, len(chunk), MAX_CHUNK_BYTES):
            piece = chunk[start : start + MAX_CHUNK_BYTES]
            yield scoring_pb2.ScoreImageRequest(chunk=piece)


async def accepted(writing: Awaitable[None]) -> bool:
    """Whether a call took what was written to it; False when it is over."""
    try:
        await writing
    except Exception:
        return False
    return True
