"""Probes and their policies, made of embeddings that the service returns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import grpc

from imagesafety.probe_file import ProbeFile, probe_bytes
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

POLICY = """\
model = "demo"
[concepts]
wanted = { probe = "wanted.probe", sha256 = "DIGEST" }
[groups.g]
thresholds = { wanted = 0 }
[[rules]]
name = "found"
all = ["g"]
"""


def embedding(address: str, data: bytes) -> tuple[scoring_pb2.ModelIdentity, Sequence[float]]:
    """The model, and the embedding of a picture that is one view."""
    prompts = scoring_pb2.PromptSet(prompts=[scoring_pb2.Prompt(text="a circle")])
    options = scoring_pb2.ScoringOptions(
        concepts=[scoring_pb2.Concept(name="a", prompts=prompts)], return_embeddings=True
    )
    header = scoring_pb2.ScoreImageHeader(options=options)
    parts = [
        scoring_pb2.ScoreImageRequest(header=header),
        scoring_pb2.ScoreImageRequest(chunk=data),
    ]
    with grpc.insecure_channel(address) as channel:
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        scores = stub.ScoreImage(iter(parts), timeout=30).scores
    return scores.model, scores.views[0].embedding


def write_policy(
    folder: Path, model: scoring_pb2.ModelIdentity, vector: Sequence[float], bias: float = 0.0
) -> Path:
    """Writes a probe and then the policy that rejects what it finds."""
    data = probe_bytes(ProbeFile(model.name, model.weights_digest, tuple(vector), bias))
    (folder / "wanted.probe").write_bytes(data)
    path = folder / "policy.toml"
    path.write_text(POLICY.replace("DIGEST", hashlib.sha256(data).hexdigest()))
    return path
