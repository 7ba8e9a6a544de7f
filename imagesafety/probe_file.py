"""Files of trained probes, which policies name: JSON, a few kilobytes each.

    {"format": 1,
     "model": "ViT-B-32-SigLIP2-256/webli",    the model that it was trained for
     "weights_digest": "sha256:…",             and the weights, as DescribeModel tells them
     "vector": "…",                            little-endian float32 in base64
     "bias": -0.03,                            added to the cosine with the vector
     "trained": {"how": "…", "true": 120, "false": 480, "material": "sha256:…", "date": "…"}}

`trained` is for people. The policy pins the file by its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from imagesafety.policy import Policy, Probe

FORMAT = 1
LARGEST_BYTES = 1024 * 1024
_KEYS = ("format", "model", "weights_digest", "vector", "bias", "trained")


class ProbeError(ValueError):
    """A probe file that can't be used; the message is the reason."""


@dataclass(frozen=True)
class Training:
    """What a probe was made of: how, and from how many images that show the concept or don't.

    `material` identifies the images. `date` is as in ISO 8601.
    """

    how: str
    true: int
    false: int
    material: str
    date: str


@dataclass(frozen=True)
class ProbeFile:
    """What is in a probe file."""

    model: str
    weights_digest: str
    vector: tuple[float, ...]
    bias: float
    trained: Training | None = None


def probe_bytes(probe: ProbeFile) -> bytes:
    """The file of a probe. Its vector is rounded to float32."""
    content: dict[str, object] = {
        "format": FORMAT,
        "model": probe.model,
        "weights_digest": probe.weights_digest,
        "vector": base64.b64encode(struct.pack(f"<{len(probe.vector)}f", *probe.vector)).decode(),
        "bias": probe.bias,
    }
    if probe.trained is not None:
        content["trained"] = asdict(probe.trained)
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def parse_probe(data: bytes) -> ProbeFile:
    """Reads a probe from the bytes of its file. Raises ProbeError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ProbeError("is no JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ProbeError(f"is no probe of format {FORMAT}")
    if unknown := set(content) - set(_KEYS):
        raise ProbeError(f"has an unknown key {min(unknown)!r}")
    model, weights_digest, bias = (content.get(key) for key in ("model", "weights_digest", "bias"))
    if not isinstance(model, str) or not model:
        raise ProbeError("names no model")
    if not isinstance(weights_digest, str) or not re.fullmatch(
        "sha256:[0-9a-f]{64}", weights_digest
    ):
        raise ProbeError("names no weights: weights_digest must be sha256: and 64 hex digits")
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not -1 <= bias <= 1:
        raise ProbeError("has a bias that is no number in [-1, 1]")
    return ProbeFile(
        model, weights_digest, _vector(content.get("vector")), bias, _training(content)
    )


def _vector(text: object) -> tuple[float, ...]:
    try:
        data = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        vector = struct.unpack(f"<{len(data) // 4}f", data)
    except (ValueError, struct.error):
        raise ProbeError("has a vector that is no base64 of float32") from None
    if not 0 < math.hypot(*vector) < math.inf:
        raise ProbeError("has a vector that is zero or not finite")
    return vector


def _training(content: Mapping[str, object]) -> Training | None:
    told = content.get("trained")
    if told is None:
        return None
    try:
        return Training(**told)  # type: ignore[arg-type]
    except TypeError:
        raise ProbeError("has a `trained` that can't be read") from None


class ConceptProbeError(ProbeError):
    """The probe of a concept that can't be used."""

    def __init__(self, concept: str, reason: str) -> None:
        super().__init__(reason)
        self.concept = concept


def read_probes(policy: Policy, folder: Path) -> Policy:
    """The policy with what the files of its probes have, which lie in `folder`.

    Raises ConceptProbeError.
    """
    concepts = []
    for concept in policy.concepts:
        if concept.probe is None:
            concepts.append(concept)
            continue
        try:
            probe = _read(concept.probe, policy, folder / concept.probe.file)
        except ProbeError as error:
            raise ConceptProbeError(concept.name, str(error)) from error
        concepts.append(replace(concept, probe=probe))
    return replace(policy, concepts=tuple(concepts))


def _read(probe: Probe, policy: Policy, path: Path) -> Probe:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ProbeError(f"there is no probe file {path}") from None
    except (OSError, ValueError) as error:
        raise ProbeError(f"the probe {path} cannot be read: {error}") from error
    if len(data) > LARGEST_BYTES:
        raise ProbeError(f"the probe {path} is over {LARGEST_BYTES} bytes")
    if hashlib.sha256(data).hexdigest() != probe.sha256:
        raise ProbeError(f"the probe {path} has another SHA-256 than the policy says")
    try:
        content = parse_probe(data)
    except ProbeError as error:
        raise ProbeError(f"the probe {path} {error}") from error
    if content.model != policy.model:
        raise ProbeError(f"the probe {path} is for model {content.model}, not {policy.model}")
    if policy.weights_digest not in (None, content.weights_digest):
        raise ProbeError(f"the probe {path} is for other weights than the policy")
    return replace(
        probe,
        vector=content.vector,
        bias=content.bias,
        weights_digest=content.weights_digest,
    )
