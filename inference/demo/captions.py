"""Captions for drawn scenes, and which of them hold for a scene.

The pool is fixed, so the truth of every caption is known for every picture: training and
evaluation need no guess about what a caption that nobody wrote would have said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inference.demo.drawing import BACKGROUNDS, COLOURS, FILLS, SHAPES, DrawnObject, Scene

SIDES: dict[str, Callable[[DrawnObject], bool]] = {
    "on the left": lambda drawn: drawn.centre[0] < 0.45,
    "on the right": lambda drawn: drawn.centre[0] > 0.55,
    "at the top": lambda drawn: drawn.centre[1] < 0.45,
    "at the bottom": lambda drawn: drawn.centre[1] > 0.55,
}
COUNTS = ("one shape", "two shapes", "three shapes")


@dataclass(frozen=True)
class Caption:
    """Wordings that mean the same, and whether they hold for a scene."""

    kind: str
    wordings: tuple[str, ...]
    holds: Callable[[Scene], bool]


def caption_pool() -> tuple[Caption, ...]:
    """All captions, in a fixed order."""
    return (*_shapes(), *_colours(), *_pairs(), *_fills(), *_sides(), *_counts(), *_backgrounds())


def _any(condition: Callable[[DrawnObject], bool]) -> Callable[[Scene], bool]:
    return lambda scene: any(condition(drawn) for drawn in scene.objects)


def _of(thing: str, plural: str) -> tuple[str, ...]:
    return (
        thing,
        plural,
        f"a picture of {thing}",
        f"a drawing of {thing}",
        f"a photo of {thing}",
        f"a picture with {thing}",
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _shapes() -> list[Caption]:
    return [
        Caption("shape", (shape, *_of(f"a {shape}", f"{shape}s")), _any(_is(shape=shape)))
        for shape in SHAPES
    ]


def _colours() -> list[Caption]:
    return [
        Caption(
            "colour",
            (
                colour,
                f"something {colour}",
                f"the colour {colour}",
                *_of(f"{_article(colour)} {colour} shape", f"{colour} shapes"),
                *_of(f"{_article(colour)} {colour} object", f"{colour} things"),
            ),
            _any(_is(colour=colour)),
        )
        for colour in COLOURS
    ]


def _pairs() -> list[Caption]:
    return [
        Caption(
            "pair",
            (
                f"{colour} {shape}",
                *_of(f"{_article(colour)} {colour} {shape}", f"{colour} {shape}s"),
            ),
            _any(_is(shape=shape, colour=colour)),
        )
        for colour in COLOURS
        for shape in SHAPES
    ]


def _is(shape: str | None = None, colour: str | None = None) -> Callable[[DrawnObject], bool]:
    return lambda drawn: shape in (None, drawn.shape) and colour in (None, drawn.colour)


def _fills() -> list[Caption]:
    return [
        Caption("fill", _of(f"a {fill} {noun}", f"{fill} {noun}s"), _any(_fill_test(fill, noun)))
        for fill in FILLS
        for noun in ("shape", *SHAPES)
    ]


def _fill_test(fill: str, noun: str) -> Callable[[DrawnObject], bool]:
    return lambda drawn: drawn.fill == fill and noun in ("shape", drawn.shape)


def _sides() -> list[Caption]:
    return [
        Caption("position", (f"a {noun} {side}", f"{noun} {side}"), _any(_side_test(side, noun)))
        for side in SIDES
        for noun in ("shape", *SHAPES)
    ]


def _side_test(side: str, noun: str) -> Callable[[DrawnObject], bool]:
    return lambda drawn: SIDES[side](drawn) and noun in ("shape", drawn.shape)


def _counts() -> list[Caption]:
    return [
        Caption("count", (words, f"a picture of {words}"), _has_count(number))
        for number, words in enumerate(COUNTS, start=1)
    ]


def _has_count(number: int) -> Callable[[Scene], bool]:
    return lambda scene: len(scene.objects) == number


def _backgrounds() -> list[Caption]:
    return [
        Caption(
            "background",
            (f"a {name} background", f"shapes on a {name} background"),
            _has_background(name),
        )
        for name in BACKGROUNDS
    ]


def _has_background(name: str) -> Callable[[Scene], bool]:
    return lambda scene: scene.background == name
