"""Reads policies from TOML files; what can't be meant is refused with the line and the reason."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from imagesafety.policy import (
    CRITICAL_COUNT,
    Action,
    Adjustment,
    Concept,
    Detail,
    Group,
    Mode,
    Partial,
    Policy,
    Probe,
    Prompt,
    Rule,
)
from imagesafety.probe_file import ConceptProbeError, read_probes
from imagesafety.toml_lines import Place, line_of

SHIPPED = Path(__file__).parent / "policies"  # a link to policies/ in a checkout
MOST_TILES = 3  # per side, as scoring.proto has it
_KEYS = (
    "model",
    "weights_digest",
    "partial",
    "concepts",
    "adjustments",
    "groups",
    "rules",
    "detail",
)
SMALLEST_WEIGHT, LARGEST_WEIGHT = 0.001, 1000.0


class PolicyError(ValueError):
    """A policy that can't be used; the message is one line with file, line number and reason."""


class PolicyProbeError(PolicyError):
    """A policy whose probe files can't be used, as they are now."""


class _RefusedError(Exception):
    """A value at `place` that can't be meant."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place, self.reason = place, reason


def find_policy(name: str) -> Path:
    """The path of a policy: a file, or the name of one that ships with the project ("demo").

    Raises PolicyError if there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    if "/" not in name and (SHIPPED / f"{name}.toml").is_file():
        return SHIPPED / f"{name}.toml"
    raise PolicyError(f"{name}: no such policy file")


def load_policy(path: Path) -> Policy:
    """Reads a policy file, and the files of its probes. Raises PolicyError."""
    return parse_policy(policy_text(path), str(path), path.parent)


def policy_text(path: Path) -> str:
    """The text of a policy file, lines ending in LF and without a byte order mark.

    Raises PolicyError.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read: {error}") from error


def parse_policy(text: str, source: str = "policy", folder: Path | None = None) -> Policy:
    """Reads a policy from the text of a TOML file; `source` names it in errors.

    Probes are read from `folder`; without one they have no vectors, and the policy can judge
    similarities but not ask for any. Raises PolicyError; PolicyProbeError if only they are wrong.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(f"{source}: not valid TOML: {error}") from error
    kind: type[PolicyError] = PolicyError
    try:
        policy = _policy(document, text)
        return policy if folder is None else read_probes(policy, folder)
    except _RefusedError as refused:
        place, reason = refused.place, refused.reason
    except ConceptProbeError as error:
        place, reason, kind = ("concepts", error.concept, "probe"), str(error), PolicyProbeError
    line = line_of(text, place)
    where = f"{source}, line {line}" if line is not None else source
    raise kind(f"{where}: {reason}")


def _policy(document: Mapping[str, object], text: str) -> Policy:
    _check_keys(document, (), _KEYS)
    concepts = _concepts(_table(document, (), "concepts"))
    names = {concept.name for concept in concepts}
    groups = {
        name: _group(_table(_table(document, (), "groups"), ("groups",), name), name, names)
        for name in _table(document, (), "groups")
    }
    return Policy(
        model=_text(document.get("model"), ("model",)),
        weights_digest=_weights_digest(document),
        concepts=concepts,
        adjustments=tuple(
            _adjustment(table, ("adjustments", index), names)
            for index, table in enumerate(_tables(document, "adjustments"))
        ),
        groups=groups,
        rules=_rules(_tables(document, "rules"), groups),
        digest=hashlib.sha256(text.encode()).hexdigest(),
        detail=_detail(_table(document, (), "detail")),
        partial=_partial(document.get("partial", Partial.UNDECODABLE)),
        text=text,
    )


def _partial(value: object) -> Partial:
    if value not in tuple(Partial):
        choice = f"partial must be {', '.join(Partial)}, not {value!r}"
        raise _RefusedError(("partial",), choice)
    return Partial(str(value))


def _detail(table: Mapping[str, object]) -> Detail | None:
    if not table:
        return None
    _check_keys(table, ("detail",), ("tiles", "margin"))
    tiles, margin = table.get("tiles", MOST_TILES), None
    if type(tiles) is not int or not 2 <= tiles <= MOST_TILES:
        raise _RefusedError(("detail", "tiles"), f"tiles must be 2 or {MOST_TILES}")
    if "margin" in table:
        margin = _number(table["margin"], ("detail", "margin"))
        if not 0 <= margin <= 1:
            raise _RefusedError(("detail", "margin"), f"margin {margin:g} is outside [0, 1]")
    return Detail(tiles, margin)


def _weights_digest(document: Mapping[str, object]) -> str | None:
    if "weights_digest" not in document:
        return None
    digest = _text(document["weights_digest"], ("weights_digest",))
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _RefusedError(("weights_digest",), "weights_digest must be sha256: and 64 hex digits")
    return digest


def _concepts(tables: Mapping[str, object]) -> tuple[Concept, ...]:
    if not tables:
        raise _RefusedError(("concepts",), "[concepts] names no concept")
    return tuple(_concept(name, value, ("concepts", name)) for name, value in tables.items())


def _concept(name: str, value: object, place: Place) -> Concept:
    """A list of prompts, or a table of prompts and as many weights, or one that names a probe."""
    weights: list[float] | None = None
    if isinstance(value, Mapping) and "probe" in value:
        return Concept(name, probe=_probe(value, place))
    if isinstance(value, Mapping):
        _check_keys(value, place, ("prompts", "weights", "probe"))
        if "weights" in value:
            weights = [_positive(item, place) for item in _list(value["weights"], place)]
        value = value.get("prompts")
    texts = [_text(item, place) for item in _list(value, place)]
    if not texts:
        raise _RefusedError(place, f"concept {name!r} has no prompts")
    if weights is None:
        weights = [1.0] * len(texts)
    if len(weights) != len(texts):
        raise _RefusedError(
            place, f"concept {name!r} has {len(texts)} prompts, {len(weights)} weights"
        )
    return Concept(name, tuple(map(Prompt, texts, weights)))


def _probe(table: Mapping[str, object], place: Place) -> Probe:
    """The name of a file beside the policy, and the SHA-256 that it must have."""
    _check_keys(table, place, ("probe", "sha256"))
    sha256 = _text(table.get("sha256"), (*place, "sha256"))
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise _RefusedError((*place, "sha256"), "sha256 must be 64 hex digits")
    return Probe(_text(table["probe"], (*place, "probe")), sha256)


def _adjustment(table: Mapping[str, object], place: Place, concepts: set[str]) -> Adjustment:
    _check_keys(table, place, ("when", "add"))
    when = _thresholds(table, place, "when", concepts)
    add = _thresholds(table, place, "add", concepts)
    if not when or not add:
        raise _RefusedError(place, "an adjustment needs `when` and `add`")
    return Adjustment(when, add)


def _group(table: Mapping[str, object], name: str, concepts: set[str]) -> Group:
    place: Place = ("groups", name)
    _check_keys(table, place, ("at_least", "thresholds", "critical", "twins"))
    thresholds = _thresholds(table, place, "thresholds", concepts)
    if not thresholds:
        raise _RefusedError(place, f"group {name!r} has no thresholds")
    critical = _thresholds(table, place, "critical", set(thresholds), "threshold of the group")
    for concept, value in critical.items():
        if value < thresholds[concept]:
            raise _RefusedError(
                (*place, "critical", concept), f"critical {concept!r} is under its threshold"
            )
    at_least = table.get("at_least", 1)
    reachable = sum(CRITICAL_COUNT if concept in critical else 1 for concept in thresholds)
    if type(at_least) is not int or not 1 <= at_least <= reachable:
        raise _RefusedError(
            (*place, "at_least"),
            f"at_least must be a whole number from 1 to {reachable}, the most this group can count",
        )
    return Group(name, at_least, thresholds, critical, _twins(table, place, thresholds))


def _twins(
    table: Mapping[str, object], place: Place, thresholds: Mapping[str, float]
) -> tuple[tuple[str, str], ...]:
    place = (*place, "twins")
    pairs = []
    for item in _list(table.get("twins", []), place):
        pair = [_text(word, place) for word in _list(item, place)]
        if len(pair) != 2 or pair[0] == pair[1]:
            raise _RefusedError(place, "twins must be pairs of two concepts")
        for word in pair:
            if word not in thresholds:
                raise _RefusedError(place, f"twin {word!r} has no threshold in the group")
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def _rules(tables: list[Mapping[str, object]], groups: Mapping[str, Group]) -> tuple[Rule, ...]:
    if not tables:
        raise _RefusedError((), "no [[rules]]: nothing would ever be rejected or flagged")
    rules: list[Rule] = []
    for index, table in enumerate(tables):
        place: Place = ("rules", index)
        _check_keys(table, place, ("name", "all", "action", "mode"))
        name = _text(table.get("name"), (*place, "name"))
        if any(rule.name == name for rule in rules):
            raise _RefusedError((*place, "name"), f"a second rule named {name!r}")
        wanted = [_text(item, (*place, "all")) for item in _list(table.get("all"), (*place, "all"))]
        if not wanted:
            raise _RefusedError((*place, "all"), f"rule {name!r} needs `all`, a list of groups")
        for group in wanted:
            if group not in groups:
                raise _RefusedError((*place, "all"), f"unknown group {group!r}{_known(groups)}")
        action = table.get("action", "reject")
        if action not in tuple(Action):
            raise _RefusedError(
                (*place, "action"), f"action must be reject or flag, not {action!r}"
            )
        mode = table.get("mode", "enforce")
        if mode not in tuple(Mode):
            raise _RefusedError(
                (*place, "mode"), f"mode must be enforce, shadow or off, not {mode!r}"
            )
        rules.append(Rule(name, tuple(wanted), Action(str(action)), Mode(str(mode))))
    return tuple(rules)


def _thresholds(
    table: Mapping[str, object],
    place: Place,
    key: str,
    known: set[str],
    what: str = "concept",
) -> dict[str, float]:
    """A table of concept = number in [-1, 1]."""
    result = {}
    for concept, value in _table(table, place, key).items():
        here = (*place, key, concept)
        if concept not in known:
            raise _RefusedError(here, f"unknown {what} {concept!r}{_known(known)}")
        result[concept] = _number(value, here)
        if not -1 <= result[concept] <= 1:
            raise _RefusedError(here, f"{value} for {concept!r} is outside [-1, 1]")
    return result


def _check_keys(table: Mapping[str, object], place: Place, known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise _RefusedError((*place, key), f"unknown key {key!r}{_known(known)}")


def _known(names: Iterable[str]) -> str:
    return f" (known here: {', '.join(sorted(names))})"


def _table(table: Mapping[str, object], place: Place, key: str) -> Mapping[str, object]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise _RefusedError((*place, key), f"{key!r} must be a table")
    return value


def _tables(table: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    items = table.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise _RefusedError((key,), f"{key!r} must be written as [[{key}]]")
    return items


def _list(value: object, place: Place) -> list[object]:
    if not isinstance(value, list):
        raise _RefusedError(place, f"{place[-1]!r} must be a list")
    return value


def _text(value: object, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _RefusedError(place, f"{place[-1]!r} must be a text that is not empty")
    return value


def _number(value: object, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError(place, f"{place[-1]!r} must be a number")
    try:
        return float(value)
    except OverflowError:
        raise _RefusedError(place, f"{place[-1]!r} is far too large a number") from None


def _positive(value: object, place: Place) -> float:
    number = _number(value, place)
    if not SMALLEST_WEIGHT <= number <= LARGEST_WEIGHT:
        message = f"a weight of {place[-1]!r} is not from {SMALLEST_WEIGHT} to {LARGEST_WEIGHT:g}"
        raise _RefusedError(place, message)
    return number
