"""Gives a concept of a policy file another definition, and leaves the rest as somebody wrote it."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imagesafety.policy import Concept
from imagesafety.toml_edit import literal

_WEIGHT_DIGITS = 3


def with_concept(text: str, concept: Concept) -> str:
    """The text of a policy with this definition for the concept of its name.

    The lines that were there stay as comments. What the result says is compared with what is meant.
    Raises KeyError if the concept can't be found as lines of its own.
    """
    before = tomllib.loads(text)
    wanted = copy.deepcopy(before)
    wanted["concepts"][concept.name] = _value(concept)
    lines = text.split("\n")
    for start, end in _ranges(lines, concept.name):
        old = lines[start:end]
        for new in _written(concept, old[0]):
            comments = [f"# {line}".rstrip() for line in old]
            made = "\n".join([*lines[:start], *comments, *new, *lines[end:]])
            if _says(made, wanted):
                return made
    raise KeyError(f"the definition of concept {concept.name!r} has no lines of its own")


def _ranges(lines: Sequence[str], name: str) -> Iterator[tuple[int, int]]:
    """Where a definition of this name may begin and end; a name with escapes may look otherwise."""
    for start, line in enumerate(lines):
        if name in line or "\\" in line:
            for end in range(start + 1, len(lines) + 1):
                yield start, end


def _written(concept: Concept, old: str) -> Iterator[list[str]]:
    """The definition as lines, in each way that TOML has and the old first line may need."""
    key = json.dumps(concept.name, ensure_ascii=False).replace("\x7f", "\\u007f")
    if concept.name.isascii() and concept.name.replace("-", "").replace("_", "").isalnum():
        key = concept.name
    pairs = [f"{name} = {_toml(value)}" for name, value in _value(concept).items()]
    if old.lstrip().startswith("["):
        yield [f"[concepts.{key}]", *pairs]
        return
    indent = old[: len(old) - len(old.lstrip())]
    yield [f"{indent}{key} = {{ {', '.join(pairs)} }}"]
    yield [f"{indent}concepts.{key} = {{ {', '.join(pairs)} }}"]


def _value(concept: Concept) -> dict[str, Any]:
    if concept.probe is not None:
        return {"probe": concept.probe.file, "sha256": concept.probe.sha256}
    return {
        "prompts": [prompt.text for prompt in concept.prompts],
        "weights": [round(prompt.weight, _WEIGHT_DIGITS) for prompt in concept.prompts],
    }


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return literal(value, 0)
    return literal(float(str(value)), _WEIGHT_DIGITS)


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    # The order of concepts is that of the similarities.
    return found == wanted and list(found["concepts"]) == list(wanted["concepts"])
