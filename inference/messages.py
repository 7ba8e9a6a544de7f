"""Between the messages of scoring.proto and the service's own values."""

from __future__ import annotations

import math
from typing import NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from imagesafety.v1 import scoring_pb2
from inference.concepts import Definition, Probe, PromptSet
from inference.encoder import ModelDescription
from inference.errors import Reason, ScoringError
from inference.scoring import ScoredImage, ScoredView, ScoringOptions
from inference.work_queue import Priority

ERROR_DOMAIN = "imagesafety"


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
    return ScoringOptions(
        concepts=tuple(
            _definition(concept, limits.max_prompt_characters, embedding_width)
            for concept in options.concepts
        ),
        priority=priorities[options.priority],
        return_embeddings=options.return_embeddings,
    )


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


def image_scores(scored: ScoredImage, model: ModelDescription) -> scoring_pb2.ImageScores:
    """The answer for an image."""
    return scoring_pb2.ImageScores(
        views=[_view(view) for view in scored.views],
        media_type=scored.media.media_type,
        width=scored.media.width,
        height=scored.media.height,
        model=model_identity(model),
    )


def _view(scored: ScoredView) -> scoring_pb2.View:
    view, region = scored.view, scored.view.region
    frame_time = duration_pb2.Duration()
    frame_time.FromNanoseconds(round(view.frame_time * 1e9))
    return scoring_pb2.View(
        frame_index=view.frame_index,
        frame_time=frame_time,
        region=scoring_pb2.Region(
            left=region.left, top=region.top, width=region.width, height=region.height
        ),
        similarities=scored.similarities.tolist(),
        embedding=scored.embedding.tolist() if scored.embedding is not None else (),
    )


def model_identity(model: ModelDescription) -> scoring_pb2.ModelIdentity:
    """The identity of a model."""
    return scoring_pb2.ModelIdentity(
        name=model.name, weights_digest=model.weights_digest, backend=model.backend
    )


def error_status(error: ScoringError) -> status_pb2.Status:
    """The rich status of an error: code, message and ErrorInfo."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason.name, domain=ERROR_DOMAIN))
    number: int = error.reason.code.value[0]
    return status_pb2.Status(code=number, message=error.message, details=[detail])
