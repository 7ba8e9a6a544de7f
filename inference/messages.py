"""Between the messages of scoring.proto and the service's own values."""

from __future__ import annotations

import math
from typing import NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from imagesafety.v1 import scoring_pb2
from inference.concepts import ConceptSet, Definition, Probe, PromptSet
from inference.decoder.media import Background
from inference.encoder import ModelDescription
from inference.errors import Reason, ScoringError
from inference.scoring import Band, Detail, ScoredImage, ScoredView, ScoringOptions
from inference.work_queue import Priority

ERROR_DOMAIN = "imagesafety"
MAX_CLIENT_CHARACTERS = 128
MOST_TILES = 3  # per side: what scoring.proto knows

_Code = grpc.StatusCode
STATUS_CODES = {
    Reason.HEADER_MISSING: _Code.INVALID_ARGUMENT,
    Reason.HEADER_REPEATED: _Code.INVALID_ARGUMENT,
    Reason.INVALID_HEADER: _Code.INVALID_ARGUMENT,
    Reason.EMPTY_IMAGE: _Code.INVALID_ARGUMENT,
    Reason.UNSUPPORTED_TYPE: _Code.INVALID_ARGUMENT,
    Reason.TYPE_MISMATCH: _Code.INVALID_ARGUMENT,
    Reason.TRUNCATED: _Code.INVALID_ARGUMENT,
    Reason.UNDECODABLE: _Code.INVALID_ARGUMENT,
    Reason.DECODER_CRASHED: _Code.INVALID_ARGUMENT,
    Reason.DECODER_TIMEOUT: _Code.INVALID_ARGUMENT,
    Reason.DECODER_OUT_OF_MEMORY: _Code.INVALID_ARGUMENT,
    Reason.EMBEDDINGS_NOT_ALLOWED: _Code.PERMISSION_DENIED,
    Reason.TOO_MANY_BYTES: _Code.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_PIXELS: _Code.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_FRAMES: _Code.RESOURCE_EXHAUSTED,
    Reason.TOO_LONG: _Code.RESOURCE_EXHAUSTED,
    Reason.QUEUE_FULL: _Code.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXCEEDED: _Code.DEADLINE_EXCEEDED,
    Reason.UPLOAD_STALLED: _Code.DEADLINE_EXCEEDED,
    Reason.DRAINING: _Code.UNAVAILABLE,
    Reason.ENCODER_FAILED: _Code.INTERNAL,
    Reason.DECODER_KILLED: _Code.INTERNAL,
}
"""Which gRPC status code each reason travels under."""


_BACKGROUNDS = {
    Background.NONE: scoring_pb2.BACKGROUND_UNSPECIFIED,
    Background.WHITE: scoring_pb2.BACKGROUND_WHITE,
    Background.BLACK: scoring_pb2.BACKGROUND_BLACK,
}


def parse_options(
    options: scoring_pb2.ScoringOptions,
    limits: scoring_pb2.Limits,
    embedding_width: int,
    default: Priority,
) -> ScoringOptions:
    """Reads the options of a header. Raises ScoringError with INVALID_HEADER."""
    if not 1 <= len(options.concepts) <= limits.max_concepts:
        _invalid(f"{len(options.concepts)} concepts; from 1 to {limits.max_concepts} are taken")
    prompts = sum(len(concept.prompts.prompts) for concept in options.concepts)
    if prompts > limits.max_prompts:
        _invalid(f"{prompts} prompts; at most {limits.max_prompts} are taken")
    names = [concept.name for concept in options.concepts]
    if len(set(names)) != len(names) or "" in names:
        _invalid("every concept needs a name of its own")
    priorities = {
        scoring_pb2.PRIORITY_UNSPECIFIED: default,
        scoring_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
        scoring_pb2.PRIORITY_BULK: Priority.BULK,
    }
    if options.priority not in priorities:
        _invalid(f"unknown priority {options.priority}")
    if len(options.client) > MAX_CLIENT_CHARACTERS:
        _invalid(f"the client's name is over {MAX_CLIENT_CHARACTERS} characters")
    return ScoringOptions(
        concepts=ConceptSet(
            tuple(
                _definition(concept, limits.max_prompt_characters, embedding_width)
                for concept in options.concepts
            )
        ),
        priority=priorities[options.priority],
        client=options.client,
        return_embeddings=options.return_embeddings,
        max_frames=(
            options.max_frames if options.HasField("max_frames") else limits.default_max_frames
        ),
        detail=_detail(options.detail, names),
        return_hashes=options.return_perceptual_hashes,
    )


def _detail(detail: scoring_pb2.Detail, names: list[str]) -> Detail:
    if detail.tiles > MOST_TILES:
        _invalid(f"tiles: {detail.tiles}; at most {MOST_TILES} are taken")
    bands = []
    for band in detail.when:
        if band.concept not in names:
            _invalid(f"detail: unknown concept {band.concept!r}")
        if not band.at_least <= band.at_most:
            _invalid(f"detail: the band of {band.concept!r} is empty")
        bands.append(Band(names.index(band.concept), band.at_least, band.at_most))
    return Detail(max(1, detail.tiles), tuple(bands))


def _definition(concept: scoring_pb2.Concept, max_characters: int, width: int) -> Definition:
    definition = concept.WhichOneof("definition")
    if definition is None:
        _invalid(f"concept {concept.name!r} has neither prompts nor a probe")
    if definition == "prompts":
        return _prompt_set(concept, max_characters)
    return _probe(concept, width)


def _prompt_set(concept: scoring_pb2.Concept, max_characters: int) -> PromptSet:
    prompts = concept.prompts.prompts
    if not prompts:
        _invalid(f"concept {concept.name!r} has no prompts")
    for prompt in prompts:
        if not prompt.text.strip():
            _invalid(f"concept {concept.name!r} has an empty prompt")
        if len(prompt.text) > max_characters:
            _invalid(f"a prompt of {concept.name!r} is over {max_characters} characters")
    weights = tuple(prompt.weight if prompt.HasField("weight") else 1.0 for prompt in prompts)
    if not all(0 < weight < math.inf for weight in weights):
        _invalid(f"concept {concept.name!r} has a weight that is not over 0")
    return PromptSet(tuple(prompt.text for prompt in prompts), weights)


def _probe(concept: scoring_pb2.Concept, width: int) -> Probe:
    vector = tuple(concept.probe.vector)
    if len(vector) != width:
        _invalid(f"the probe of {concept.name!r} has {len(vector)} values, the model {width}")
    if not 0 < math.hypot(*vector) < math.inf:
        _invalid(f"the probe of {concept.name!r} is zero or not finite")
    if not -1 <= concept.probe.bias <= 1:
        _invalid(f"the bias of {concept.name!r} is outside [-1, 1]")
    return Probe(vector, concept.probe.bias)


def _invalid(message: str) -> NoReturn:
    raise ScoringError(Reason.INVALID_HEADER, message)


def image_scores(scored: ScoredImage, model: scoring_pb2.ModelIdentity) -> scoring_pb2.ImageScores:
    """The answer for an image."""
    facts = scored.facts
    return scoring_pb2.ImageScores(
        views=[_view(view) for view in scored.views],
        media_type=facts.media_type,
        width=facts.width,
        height=facts.height,
        model=model,
        partial=facts.partial,
        partial_reason=scored.passing.name if scored.passing is not None else "",
        frames=facts.frames,
        total_frames=facts.total_frames,
        duration=duration_message(facts.duration),
        perceptual_hashes=[
            scoring_pb2.PerceptualHash(
                frame_index=found.frame_index,
                background=_BACKGROUNDS[found.background],
                pdq=found.pdq,
                quality=found.quality,
            )
            for found in scored.hashes
        ],
        stages=scoring_pb2.Stages(
            decode=duration_message(scored.stages.decode),
            encode=duration_message(scored.stages.encode),
        ),
    )


def _view(scored: ScoredView) -> scoring_pb2.View:
    view, region = scored.view, scored.view.region
    return scoring_pb2.View(
        frame_index=view.frame_index,
        frame_time=duration_message(view.frame_time),
        region=scoring_pb2.Region(
            left=region.left, top=region.top, width=region.width, height=region.height
        ),
        similarities=scored.similarities.tolist(),
        embedding=scored.embedding.tolist() if scored.embedding is not None else (),
        background=_BACKGROUNDS[view.background],
    )


def duration_message(seconds: float) -> duration_pb2.Duration:
    """A length of time as a message."""
    whole, nanoseconds = divmod(round(seconds * 1e9), 10**9)
    return duration_pb2.Duration(seconds=whole, nanos=nanoseconds)


def model_identity(model: ModelDescription) -> scoring_pb2.ModelIdentity:
    """The identity of a model."""
    return scoring_pb2.ModelIdentity(
        name=model.name, weights_digest=model.weights_digest, backend=model.backend
    )


def error_status(error: ScoringError) -> status_pb2.Status:
    """The rich status of an error: code, message and ErrorInfo."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason.name, domain=ERROR_DOMAIN))
    number: int = STATUS_CODES[error.reason].value[0]
    return status_pb2.Status(code=number, message=error.message, details=[detail])
