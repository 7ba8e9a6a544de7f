"""What is hidden: drawings that the demo policy rejects, and drawings that it should not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from inference.demo.drawing import (
    COLOURS,
    SHAPES,
    DrawnObject,
    Scene,
    canvas_size,
    random_aspect,
    random_scene,
    render,
)

SMALLEST_SIDE, LARGEST_SIDE = 256, 400  # pixels of the shorter side
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
HARMLESS_COLOURS = tuple(colour for colour in COLOURS if colour != "red")
HARMLESS_SHAPES = tuple(shape for shape in SHAPES if shape != "triangle")

Rng = np.random.Generator


@dataclass(frozen=True)
class File:
    """A file as it is uploaded."""

    data: bytes
    media_type: str


@dataclass(frozen=True)
class Subject:
    """A drawing. Where it is `rejectable`, the first object of its scene is a red triangle."""

    rejectable: bool
    scene: Scene
    image: Image.Image

    @property
    def target(self) -> DrawnObject:
        """What the drawing is about."""
        return self.scene.objects[0]


def draw_subject(rng: Rng, *, rejectable: bool) -> Subject:
    """One object, and half of the time another one beside it."""
    aspect = random_aspect(rng)
    wanted = [("red", "triangle") if rejectable else _harmless_pair(rng)]
    if rng.random() < 0.5:
        wanted.append(_any_pair(rng) if rejectable else _beside(rng, wanted[0]))
    scene = random_scene(rng, tuple(wanted), aspect=aspect)
    side = int(rng.integers(SMALLEST_SIDE, LARGEST_SIDE))
    return Subject(rejectable, scene, render(scene, *canvas_size(side, aspect)))


def filler(rng: Rng, width: int, height: int) -> Image.Image:
    """A drawing with neither anything red nor a triangle: what a subject is hidden among.

    So that a filler beside a harmless subject never adds up to what the policy rejects.
    """
    count = int(rng.integers(1, 4))
    wanted = tuple(
        (_choice(rng, HARMLESS_COLOURS), _choice(rng, HARMLESS_SHAPES)) for _ in range(count)
    )
    return render(random_scene(rng, wanted, aspect=width / height), width, height)


def on_ground(scene: Scene, rgb: tuple[int, ...]) -> Scene:
    """The same objects on a plain ground."""
    red, green, blue = rgb
    return replace(scene, background="plain", background_rgb=((red, green, blue),) * 2)


def cut_out(scene: Scene, width: int, height: int) -> Image.Image:
    """The scene's objects on a transparent ground (RGBA)."""
    on_white, on_black = (
        np.asarray(render(on_ground(scene, ground), width, height), np.float32)
        for ground in (WHITE, BLACK)
    )
    alpha = 1 - (on_white - on_black).mean(axis=2, keepdims=True) / 255
    colours = on_black / np.maximum(alpha, 1 / 255)
    pixels = np.concatenate([np.clip(colours, 0, 255), alpha * 255], axis=2)
    return Image.fromarray(pixels.round().astype(np.uint8), "RGBA")


def png(image: Image.Image) -> File:
    """The picture, without loss."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return File(data.getvalue(), "image/png")


def jpeg(image: Image.Image, quality: int = 90, **options: object) -> File:
    """The picture as most of them come."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, **options)
    return File(data.getvalue(), "image/jpeg")


def _any_pair(rng: Rng) -> tuple[str, str]:
    return _choice(rng, COLOURS), _choice(rng, SHAPES)


def _harmless_pair(rng: Rng) -> tuple[str, str]:
    """Anything but a red triangle."""
    while (pair := _any_pair(rng)) == ("red", "triangle"):
        pass
    return pair


def _beside(rng: Rng, first: tuple[str, str]) -> tuple[str, str]:
    """Anything that does not make a red thing and a triangle together with the first."""
    while True:
        colour, shape = _harmless_pair(rng)
        if not ({"red"} & {first[0], colour} and {"triangle"} & {first[1], shape}):
            return colour, shape


def _choice(rng: Rng, names: Sequence[str]) -> str:
    return str(rng.choice(names))
