"""A policy with thresholds moved: sliders, what comes of them, and the TOML to write. Pure code."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from imagesafety.policy import CRITICAL_COUNT, Group, Policy

STEP = 0.001
REACH = 0.1  # how far a slider goes to either side

Kind = Literal["at_least", "threshold", "critical"]


class BadMoveError(ValueError):
    """Thresholds that no policy may have; the message says which."""


@dataclass(frozen=True)
class Slider:
    """One number of a policy that can be moved; `field` is its name in a form."""

    field: str
    group: str
    kind: Kind
    concept: str
    original: float
    value: float
    low: float
    high: float
    step: float

    @property
    def is_moved(self) -> bool:
        """Whether it stands elsewhere than in the policy."""
        return self.value != self.original

    @property
    def written(self) -> str:
        """The value as a policy file would have it."""
        return _written(self.value)

    @property
    def written_original(self) -> str:
        """The policy's value, likewise."""
        return _written(self.original)


@dataclass(frozen=True)
class Moves:
    """All sliders of a policy by group, and the policy that they make."""

    groups: Mapping[str, tuple[Slider, ...]]
    policy: Policy

    @property
    def moved(self) -> list[Slider]:
        """The sliders that stand elsewhere than in the policy."""
        return [slider for sliders in self.groups.values() for slider in sliders if slider.is_moved]

    @property
    def toml(self) -> str:
        """The tables to put in place of those in the policy file; empty where nothing is moved."""
        touched = dict.fromkeys(slider.group for slider in self.moved)
        return "\n".join(_table(self.policy.groups[name]) for name in touched)


def moves(policy: Policy, form: Mapping[str, str]) -> Moves:
    """The sliders, where a form has put them. Raises BadMoveError."""
    groups = {
        group.name: tuple(_sliders(index, group, form))
        for index, group in enumerate(policy.groups.values())
    }
    made = {name: _made(policy.groups[name], sliders) for name, sliders in groups.items()}
    if made == dict(policy.groups):
        return Moves(groups, policy)
    digest = hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest()
    return Moves(groups, replace(policy, groups=made, digest=digest, text=""))


def _sliders(index: int, group: Group, form: Mapping[str, str]) -> list[Slider]:
    most = sum(CRITICAL_COUNT if c in group.critical else 1 for c in group.thresholds)
    found = []
    if most > 1:
        field = f"g{index}.n"
        value = float(_number(form, field, group.at_least))
        least = Slider(field, group.name, "at_least", "", group.at_least, value, 1, most, 1)
        found.append(least)
    for place, (concept, threshold) in enumerate(group.thresholds.items()):
        field = f"g{index}.t{place}"
        found.append(_slider(field, group.name, "threshold", concept, threshold, form))
        if (critical := group.critical.get(concept)) is not None:
            field = f"g{index}.c{place}"
            found.append(_slider(field, group.name, "critical", concept, critical, form))
    return found


def _slider(
    field: str, group: str, kind: Kind, concept: str, original: float, form: Mapping[str, str]
) -> Slider:
    value = _number(form, field, original)
    low = max(-1.0, round(original - REACH, 6))
    high = min(1.0, round(original + REACH, 6))
    return Slider(field, group, kind, concept, original, value, low, high, STEP)


def _number(form: Mapping[str, str], field: str, original: float) -> float:
    text = form.get(field, "")
    if not text:
        return original
    try:
        value = float(text)
    except ValueError:
        raise BadMoveError(f"{text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise BadMoveError(f"{text[:40]!r} is not a number to compare with")
    # A slider stands on its steps; what is nearer than that has not been moved.
    return original if abs(value - original) < STEP / 2 else round(value, 6)


def _made(group: Group, sliders: tuple[Slider, ...]) -> Group:
    """The group with the values of its sliders."""
    least = group.at_least
    thresholds: dict[str, float] = {}
    critical: dict[str, float] = {}
    for slider in sliders:
        if slider.kind == "at_least":
            if slider.value != int(slider.value) or not 1 <= slider.value <= slider.high:
                limit = f"a whole number from 1 to {slider.high:g}"
                raise BadMoveError(f"at_least of {group.name} must be {limit}")
            least = int(slider.value)
            continue
        if not -1 <= slider.value <= 1:
            raise BadMoveError(f"{slider.value:g} for {slider.concept} is outside [-1, 1]")
        (thresholds if slider.kind == "threshold" else critical)[slider.concept] = slider.value
    for concept, value in critical.items():
        if value < thresholds[concept]:
            where = f"{_written(value)} is under its threshold {_written(thresholds[concept])}"
            raise BadMoveError(f"critical of {concept} in {group.name}: {where}")
    return replace(group, at_least=least, thresholds=thresholds, critical=critical)


def _table(group: Group) -> str:
    lines = [f"[groups.{_key(group.name)}]"]
    if group.at_least != 1 or len(group.thresholds) > 1:
        lines.append(f"at_least = {group.at_least}")
    if group.twins:
        pairs = ", ".join(f"[{_text(one)}, {_text(other)}]" for one, other in group.twins)
        lines.append(f"twins = [{pairs}]")
    lines.append(f"thresholds = {_inline(group.thresholds)}")
    if group.critical:
        lines.append(f"critical = {_inline(group.critical)}")
    return "\n".join(lines) + "\n"


def _inline(values: Mapping[str, float]) -> str:
    return "{ " + ", ".join(f"{_key(n)} = {_written(v)}" for n, v in values.items()) + " }"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's too, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _written(value: float) -> str:
    text = f"{value:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") and value != int(value) else text.rstrip(".")
