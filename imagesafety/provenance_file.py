"""Provenance as comments at the top of a policy file.

They are lines that begin with `#:`; what follows on them is a TOML document.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from imagesafety.provenance import Material, Measured, Provenance, Rate, Spread
from imagesafety.toml_edit import literal
from imagesafety.toml_lines import Place

MARK = "#:"
_BEGINS = re.compile(rf"{MARK} calibrated = \d{{4}}-")
_TEXTS = (
    *("imagesafety", "model", "weights_digest", "backend"),
    *("concepts_digest", "decisions_digest", "goal"),
)


class ProvenanceError(ValueError):
    """Provenance that can't be read; the message is one line."""


def find_provenance(text: str) -> Provenance | None:
    """The provenance in the text of a policy file, if it has any. Raises ProvenanceError."""
    lines = text.split("\n")
    found = _marked(lines)
    if not found:
        return None
    marked = (line.removeprefix(MARK) for line in lines[found.start : found.stop])
    try:
        content = tomllib.loads("\n".join(marked))
        return _provenance(content)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ProvenanceError(f"its provenance can't be read ({reason})") from error


def with_provenance(text: str, provenance: Provenance) -> str:
    """The text of a policy file with this provenance above it, instead of what it had."""
    lines = text.split("\n")
    old = _marked(lines)
    kept = lines[: old.start] + lines[old.stop :]
    while kept and not kept[0].strip():
        kept.pop(0)
    marked = [f"{MARK} {line}".rstrip() for line in _document(provenance)]
    return "\n".join([*marked, "", *kept])


def _marked(lines: Sequence[str]) -> range:
    """Which lines are the provenance: marked ones before the first value, or as we begin them.

    Those may be further down, where somebody has put a value above them.
    """
    is_opening = True
    for first, line in enumerate(lines):
        is_opening = is_opening and (not line.strip() or line.startswith("#"))
        if line.startswith(MARK) and (is_opening or _BEGINS.match(line)):
            last = first
            while last < len(lines) and lines[last].startswith(MARK):
                last += 1
            return range(first, last)
    return range(0)


def _document(provenance: Provenance) -> Iterator[str]:
    """The lines of the TOML document."""
    yield f"calibrated = {provenance.calibrated.isoformat(timespec='seconds')}"
    for name in _TEXTS:
        yield f"{name} = {_value(getattr(provenance, name))}"
    if provenance.budget is not None:
        yield f"budget = {_value(provenance.budget)}"
    if provenance.max_frames is not None:
        yield f"max_frames = {_value(provenance.max_frames)}"
    yield f"warnings = {_value(list(provenance.warnings))}"
    yield f"material = {_value(asdict(provenance.material))}"
    yield f"false_rejects = {_value(asdict(provenance.false_rejects))}"
    if provenance.false_accepts is not None:
        yield f"false_accepts = {_value(asdict(provenance.false_accepts))}"
    yield "[levels]"
    for name, level in provenance.levels.items():
        yield f"{_key(name)} = {_value(level)}"
    yield "[spreads]"
    for name, spread in provenance.spreads.items():
        yield f"{_key(name)} = {_value(asdict(spread))}"
    yield "[measured]"
    for place, measured in provenance.measured.items():
        described = {name: value for name, value in asdict(measured).items() if value is not False}
        yield f"{'.'.join(_key(str(key)) for key in place)} = {_value(described)}"


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else literal(name, 0)


def _value(value: object) -> str:
    if isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        return json.dumps(float(f"{value:.6g}"))
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_value(item)}' for key, item in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return literal(str(value), 0)


def _provenance(content: Mapping[str, Any]) -> Provenance:
    """Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
    calibrated = content["calibrated"]
    if not isinstance(calibrated, datetime):
        raise TypeError("calibrated is no date")
    accepts = content.get("false_accepts")
    return Provenance(
        calibrated=calibrated,
        **{name: str(content[name]) for name in _TEXTS},
        budget=float(content["budget"]) if "budget" in content else None,
        material=Material(**content["material"]),
        false_rejects=_rate(content["false_rejects"]),
        false_accepts=_rate(accepts) if accepts is not None else None,
        levels={name: float(level) for name, level in content["levels"].items()},
        spreads={name: Spread(**spread) for name, spread in content["spreads"].items()},
        measured=dict(_measured(content["measured"])),
        warnings=tuple(map(str, content["warnings"])),
        max_frames=int(content["max_frames"]) if "max_frames" in content else None,
    )


def _rate(content: Mapping[str, Any]) -> Rate:
    rate = Rate(**content)
    for value in asdict(rate).values():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
    return rate


def _measured(content: Mapping[str, Any]) -> Iterator[tuple[Place, Measured]]:
    for name, group in content.get("groups", {}).items():
        for kind, values in group.items():
            for concept, measured in values.items():
                yield ("groups", name, kind, concept), Measured(**measured)
    for index, change in content.get("adjustments", {}).items():
        for concept, measured in change["when"].items():
            yield ("adjustments", int(index), "when", concept), Measured(**measured)
