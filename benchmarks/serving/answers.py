"""What each system says of one picture: they have to agree, or there is nothing to compare."""

from __future__ import annotations

import json
import struct
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import grpc

from benchmarks.serving.grpc_calls import MODEL_INFER, SERVICE, score_image_messages
from benchmarks.serving.material import CONCEPTS, SMALL, pictures, triton_requests
from benchmarks.serving.processes import BenchmarkError
from imagesafety.v1 import scoring_pb2

TOLERANCE = 0.03  # in cosine: bfloat16 here, int8 there
SECONDS = 60.0


def ours(target: str) -> list[float]:
    """The similarities of the first picture."""
    with grpc.insecure_channel(target) as channel:
        method: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
            f"/{SERVICE}/ScoreImage"
        )
        answer = method(score_image_messages(pictures(SMALL)[0]), timeout=SECONDS)
    [view] = scoring_pb2.ScoreImageResponse.FromString(answer).scores.views
    return list(view.similarities)


def litserve(target: str) -> list[float]:
    """The same of LitServe."""
    request = urllib.request.Request(
        f"http://{target}/predict", pictures(SMALL)[0], {"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        similarities: list[float] = json.load(answer)["similarities"]
    return similarities


def triton(target: str, requests: Path) -> list[float]:
    """The same of Triton."""
    with grpc.insecure_channel(target) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        answer = method(triton_requests(requests, SMALL)[0], timeout=SECONDS)
    # The raw output is the last field of the message; the rest of it is not needed here.
    return list(struct.unpack(f"<{len(CONCEPTS)}f", answer[-4 * len(CONCEPTS) :]))


def check(name: str, found: Sequence[float], expected: Sequence[float]) -> None:
    """Raises BenchmarkError if two systems don't agree."""
    apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    if not apart <= TOLERANCE:
        raise BenchmarkError(f"{name} says {found}, and we say {expected}")
