"""Puts other values into a TOML file and leaves the rest as somebody wrote it.

tomllib itself says where a value stands: each literal in the text is replaced by another one for a
trial, and what changes in the document then is what stands there. So every way of writing TOML is
understood, and a number in a comment or a text is never taken for a value.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping

from imagesafety.toml_lines import Place

Scalar = float | str

_NUMBER = re.compile(r"(?<![\w.+-])[+-]?[0-9][\w.]*(?:(?<=[eE])[+-][\w]+)?")
_TEXT = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_TRIAL_NUMBERS = ("0.00123456789", "0.00198765432")
_TRIAL_TEXTS = ('"a text for a trial"', '"another text for a trial"')


def with_values(text: str, values: Mapping[Place, Scalar], digits: int) -> str:
    """The text with these values at their places, numbers with at most so many digits.

    Raises KeyError for a place at which no value of that kind stands.
    """
    spans = _spans(text, values)
    for place, (start, end) in sorted(spans.items(), key=lambda item: item[1], reverse=True):
        text = text[:start] + literal(values[place], digits) + text[end:]
    return text


def with_line_after(text: str, place: Place, line: str) -> str:
    """The text with another line under the one on which the text at `place` ends.

    Raises KeyError as `with_values`.
    """
    _, end = _spans(text, {place: ""})[place]
    rest = text.find("\n", end)
    cut = len(text) if rest < 0 else rest
    return f"{text[:cut]}\n{line}{text[cut:]}"


def literal(value: Scalar, digits: int) -> str:
    """A value as TOML."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    written = f"{value:.{digits}f}".rstrip("0")
    written += "0" if written.endswith(".") else ""
    return "0.0" if float(written) == 0 else written


def _spans(text: str, values: Mapping[Place, Scalar]) -> dict[Place, tuple[int, int]]:
    """From where to where the values at these places are written."""
    numbers = {place for place, value in values.items() if not isinstance(value, str)}
    found = dict(_found(text, numbers, _NUMBER, _TRIAL_NUMBERS))
    found |= dict(_found(text, values.keys() - numbers, _TEXT, _TRIAL_TEXTS))
    for place in values:
        if place not in found:
            raise KeyError(f"no value is written at {'.'.join(map(str, place))}")
    return found


def _found(
    text: str, wanted: Collection[Place], literals: re.Pattern[str], trials: tuple[str, str]
) -> Iterator[tuple[Place, tuple[int, int]]]:
    before = dict(_flat(tomllib.loads(text)))
    is_text = literals is _TEXT
    missing = {place for place in wanted if isinstance(before.get(place), str) == is_text}
    for match in literals.finditer(text):
        if not missing:
            return
        for trial in trials:
            try:
                document = tomllib.loads(text[: match.start()] + trial + text[match.end() :])
            except tomllib.TOMLDecodeError:
                continue
            after = dict(_flat(document))
            changed = [place for place in after if before.get(place) != after[place]]
            if before.keys() == after.keys() and len(changed) == 1 and changed[0] in missing:
                missing.discard(changed[0])
                yield changed[0], match.span()


def _flat(value: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Every value that isn't made of others, with its place."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _flat(inside, (*place, key))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from _flat(inside, (*place, index))
    else:
        yield place, value
