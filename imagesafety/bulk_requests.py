"""The messages of a ScoreImages stream, and what of an image can be told before it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from imagesafety.bulk_attempts import Attempt, BulkImage, K
from imagesafety.client import MAX_CHUNK_BYTES, ConceptSet, detail
from imagesafety.policy import Band
from imagesafety.scores import Limits
from imagesafety.scoring_error import ScoringError
from imagesafety.v1 import scoring_pb2

_AROUND_BYTES = 4096  # of a message, around the bytes of its image
_MAX_TYPE_CHARACTERS = 256  # the service ends a stream for more


@dataclass(frozen=True)
class BulkOptions:
    """What is asked of each image; see ScoringOptions in scoring.proto."""

    concepts: ConceptSet
    client: str = ""
    max_frames: int | None = None
    tiles: int = 1
    closer_when: tuple[Band, ...] = ()
    embeddings: bool = False
    perceptual_hashes: bool = False


def header(options: BulkOptions) -> scoring_pb2.ScoreImagesRequest:
    """The first message of a stream."""
    scoring = scoring_pb2.ScoringOptions(
        concepts=options.concepts.messages,
        priority=scoring_pb2.PRIORITY_BULK,
        client=options.client,
        max_frames=options.max_frames,
        return_embeddings=options.embeddings,
        return_perceptual_hashes=options.perceptual_hashes,
        detail=detail(options.tiles, options.closer_when),
    )
    return scoring_pb2.ScoreImagesRequest(header=scoring_pb2.ScoreImagesHeader(options=scoring))


def requests(attempt: Attempt[K], limits: Limits) -> Iterator[scoring_pb2.ScoreImagesRequest]:
    """The messages that bring an image: one, if it fits."""
    name, image = attempt.request_id, attempt.image
    if len(image.data) <= max(limits.max_message_bytes - _AROUND_BYTES, MAX_CHUNK_BYTES):
        whole = scoring_pb2.WholeImage(
            request_id=name, media_type=image.media_type, data=image.data
        )
        yield scoring_pb2.ScoreImagesRequest(image=whole)
        return
    for start in range(0, len(image.data), MAX_CHUNK_BYTES):
        end = start + MAX_CHUNK_BYTES
        chunk = scoring_pb2.ImageChunk(
            request_id=name,
            media_type=image.media_type,
            data=image.data[start:end],
            last=end >= len(image.data),
        )
        yield scoring_pb2.ScoreImagesRequest(chunk=chunk)


def refusal(image: BulkImage[K], limits: Limits) -> ScoringError | None:
    """Why the service would refuse the image, as far as can be told without it."""
    if limits.max_image_bytes and len(image.data) > limits.max_image_bytes:
        message = f"the image is over {limits.max_image_bytes} bytes"
        return ScoringError(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_BYTES", message)
    if len(image.media_type) > _MAX_TYPE_CHARACTERS:
        message = f"a media type over {_MAX_TYPE_CHARACTERS} characters"
        return ScoringError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_HEADER", message)
    return None
