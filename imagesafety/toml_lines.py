"""Finds the line of a TOML file on which a key stands; tomllib does not tell."""

from __future__ import annotations

import re
import tomllib

Place = tuple[str | int, ...]
"""Where a value stands in a TOML document: keys, and numbers for elements of [[arrays]]."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"^\s*(\[\[?)\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"^\s*({_DOTTED})\s*=")
_INLINE_KEY = re.compile(rf"(?<=[{{,])\s*({_KEY})\s*=")


def line_of(text: str, place: Place) -> int | None:
    """The line, from 1, of `place`, or of the nearest thing around it; None if there is neither."""
    places = _places(text)
    for length in range(len(place), 0, -1):
        if place[:length] in places:
            return places[place[:length]]
    return None


def _places(text: str) -> dict[Place, int]:
    places: dict[Place, int] = {}
    table: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _split(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            places.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            key = (*table, *_split(assignment[1]))
            places.setdefault(key, number)
            for inline in _INLINE_KEY.finditer(line, assignment.end()):
                places.setdefault((*key, *_split(inline[1])), number)
    return places


def _split(dotted: str) -> Place:
    """The keys of a dotted key, read by the TOML parser itself; none if it is none."""
    keys: list[str | int] = []
    try:
        table: object = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:  # a line inside of a text that only looks like a key
        return ()
    while isinstance(table, dict):
        [(key, table)] = table.items()
        keys.append(key)
    return tuple(keys)
