"""What the inference service says of images and of itself, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import duration_pb2

from imagesafety.v1 import scoring_pb2

_BACKGROUNDS = {scoring_pb2.BACKGROUND_WHITE: "white", scoring_pb2.BACKGROUND_BLACK: "black"}


@dataclass(frozen=True)
class ModelIdentity:
    """Which model gave the similarities, with which weights, computed how."""

    name: str
    weights_digest: str
    backend: str


@dataclass(frozen=True)
class Limits:
    """What the service takes; see scoring.proto."""

    max_image_bytes: int
    max_image_pixels: int
    max_message_bytes: int
    max_concepts: int
    max_prompts: int
    max_prompt_characters: int
    media_types: tuple[str, ...]
    max_media_frames: int
    max_media_seconds: float
    default_max_frames: int


@dataclass(frozen=True)
class ModelDescription:
    """The model of a service and its limits."""

    model: ModelIdentity
    input_width: int
    input_height: int
    embedding_width: int
    limits: Limits


@dataclass(frozen=True)
class View:
    """One encoded picture: `similarities` has one cosine per concept of the call, in its order."""

    frame_index: int
    frame_time: float  # seconds
    region: tuple[int, int, int, int]  # left, top, width, height in pixels
    similarities: tuple[float, ...]
    background: str = ""  # "white" or "black": what is transparent was laid on that
    embedding: tuple[float, ...] = ()  # if the call asked for it


@dataclass(frozen=True)
class PerceptualHash:
    """Meta's PDQ of one picture: 32 bytes, and its quality from 0 to 100."""

    pdq: bytes
    quality: int
    frame_index: int = 0
    background: str = ""


@dataclass(frozen=True)
class ImageScores:
    """The similarities of one image and the model that they depend on.

    `partial` says why a part of the file could not be looked at, if so, and `partial_reason` is the
    reason in scoring.proto, if it may pass. `frames` of the file's
    `total_frames` were decoded and compared; `duration` is in seconds. `perceptual_hashes` has one
    for each picture that views were made of, if the call asked for them. `decode_seconds` and
    `encode_seconds` are how long the service took for that, waiting included.
    """

    views: tuple[View, ...]
    media_type: str
    width: int
    height: int
    model: ModelIdentity
    partial: str = ""
    frames: int = 1
    total_frames: int = 1
    duration: float = 0.0
    perceptual_hashes: tuple[PerceptualHash, ...] = ()
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    partial_reason: str = ""


def model_description(message: scoring_pb2.DescribeModelResponse) -> ModelDescription:
    """The description in a message of scoring.proto."""
    limits = message.limits
    return ModelDescription(
        model=_identity(message.model),
        input_width=message.input_width,
        input_height=message.input_height,
        embedding_width=message.embedding_width,
        limits=Limits(
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_message_bytes=limits.max_message_bytes,
            max_concepts=limits.max_concepts,
            max_prompts=limits.max_prompts,
            max_prompt_characters=limits.max_prompt_characters,
            media_types=tuple(limits.media_types),
            max_media_frames=limits.max_media_frames,
            max_media_seconds=_seconds(limits.max_media_duration),
            default_max_frames=limits.default_max_frames,
        ),
    )


def _identity(model: scoring_pb2.ModelIdentity) -> ModelIdentity:
    return ModelIdentity(model.name, model.weights_digest, model.backend)


def image_scores(scores: scoring_pb2.ImageScores) -> ImageScores:
    """The scores in a message of scoring.proto."""
    return ImageScores(
        views=tuple(
            View(
                frame_index=view.frame_index,
                frame_time=_seconds(view.frame_time),
                region=(
                    view.region.left,
                    view.region.top,
                    view.region.width,
                    view.region.height,
                ),
                similarities=tuple(view.similarities),
                background=_BACKGROUNDS.get(view.background, ""),
                embedding=tuple(view.embedding),
            )
            for view in scores.views
        ),
        media_type=scores.media_type,
        width=scores.width,
        height=scores.height,
        model=_identity(scores.model),
        partial=scores.partial,
        partial_reason=scores.partial_reason,
        frames=scores.frames,
        total_frames=scores.total_frames,
        duration=_seconds(scores.duration),
        perceptual_hashes=tuple(
            PerceptualHash(
                pdq=found.pdq,
                quality=found.quality,
                frame_index=found.frame_index,
                background=_BACKGROUNDS.get(found.background, ""),
            )
            for found in scores.perceptual_hashes
        ),
        decode_seconds=_seconds(scores.stages.decode),
        encode_seconds=_seconds(scores.stages.encode),
    )


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
