"""Draws the pictures that the demo model is trained, evaluated and tried out on.

Try `python -m inference.demo.drawing red triangle -o red-triangle.png`.

A *scene* says what is in a picture; `random_scene` makes one up and `render` draws it. The
scene is the ground truth: which captions hold for the picture follows from it alone.
"""

from __future__ import annotations

import argparse
import colorsys
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
FILLS = ("solid", "striped", "dotted")
BACKGROUNDS = ("plain", "gradient", "checkered", "noisy", "cluttered")

# Hue in degrees and how far it may stray; far enough apart that people would agree on the name.
HUES = {
    "red": (0, 7),
    "orange": (29, 5),
    "yellow": (53, 5),
    "green": (122, 20),
    "blue": (220, 15),
    "purple": (286, 13),
}
COLOURS = tuple(HUES)
MAX_OBJECTS = 3
MAX_ASPECT = 1.5
SMALLEST = 0.12  # radius of an object, in shorter sides of the canvas
LARGEST = {1: 0.46, 2: 0.3, 3: 0.25}  # by the number of objects
_CLUTTER_PIXELS = 40
SUPERSAMPLING = 3  # edges are smoothed by drawing this much larger and averaging down


@dataclass(frozen=True)
class DrawnObject:
    """One object; places and sizes are fractions of the canvas and of its shorter side."""

    shape: str
    colour: str
    fill: str
    centre: tuple[float, float]
    radius: float
    rotation: float  # radians
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    objects: tuple[DrawnObject, ...]
    background: str
    background_rgb: tuple[tuple[int, int, int], tuple[int, int, int]]
    seed: int  # of the background's noise


def random_aspect(rng: np.random.Generator) -> float:
    """A width over a height that still makes one view of the whole."""
    return float(np.exp(rng.uniform(-np.log(MAX_ASPECT), np.log(MAX_ASPECT))))


def canvas_size(side: float, aspect: float) -> tuple[int, int]:
    """Width and height in pixels of a canvas whose shorter side is `side`."""
    return round(side * max(1.0, aspect)), round(side * max(1.0, 1 / aspect))


def random_scene(
    rng: np.random.Generator, wanted: tuple[tuple[str, str], ...] | None = None, aspect: float = 1.0
) -> Scene:
    """Makes up a scene of one to three objects, or of at most three `wanted` (colour, shape) pairs.

    `aspect` is the width over the height of the canvas that the scene will be drawn on.
    """
    if wanted is None:
        count = int(rng.integers(1, MAX_OBJECTS + 1))
        wanted = tuple((str(rng.choice(COLOURS)), str(rng.choice(SHAPES))) for _ in range(count))
    light = bool(rng.random() < 0.6)
    return Scene(
        objects=_place(rng, wanted, aspect),
        background=str(rng.choice(BACKGROUNDS)),
        background_rgb=(_background_rgb(rng, light), _background_rgb(rng, light)),
        seed=int(rng.integers(2**31)),
    )


def _place(
    rng: np.random.Generator, wanted: tuple[tuple[str, str], ...], aspect: float
) -> tuple[DrawnObject, ...]:
    """Finds places where no object touches another, with smaller objects if need be."""
    shrink = 1.0
    across, down = max(1.0, aspect), max(1.0, 1 / aspect)  # the canvas, in shorter sides
    while True:
        placed: list[tuple[float, float, float]] = []
        for _ in wanted:
            for _ in range(20):
                radius = float(rng.uniform(SMALLEST, LARGEST[len(wanted)])) * shrink
                x, y = rng.uniform(radius, across - radius), rng.uniform(radius, down - radius)
                if all(math.hypot(x - a, y - b) > radius + r for a, b, r in placed):
                    placed.append((float(x), float(y), radius))
                    break
        if len(placed) == len(wanted):
            break
        shrink *= 0.95
    return tuple(
        DrawnObject(
            shape=shape,
            colour=colour,
            fill=str(rng.choice(FILLS, p=(0.6, 0.2, 0.2))),
            centre=(x / across, y / down),
            radius=radius,
            rotation=float(rng.uniform(0, 2 * math.pi)),
            rgb=_object_rgb(rng, colour),
        )
        for (colour, shape), (x, y, radius) in zip(wanted, placed, strict=True)
    )


def _object_rgb(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    hue, spread = HUES[colour]
    degrees = (hue + rng.uniform(-spread, spread)) % 360
    # A dark yellow is olive and a dark orange is brown: those two stay bright.
    darkest = 0.88 if colour in ("orange", "yellow") else 0.6
    rgb = colorsys.hsv_to_rgb(degrees / 360, rng.uniform(0.82, 1), rng.uniform(darkest, 1))
    return (round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255))


def _background_rgb(rng: np.random.Generator, light: bool) -> tuple[int, int, int]:
    """A muted colour, so that a background never is "something red"."""
    value = rng.uniform(0.72, 1) if light else rng.uniform(0, 0.35)
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.22), value)
    return (round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255))


def render(scene: Scene, width: int, height: int) -> Image.Image:
    """Draws the scene as an RGB picture of `width` × `height` pixels."""
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    canvas = _background(scene, size)
    for drawn in scene.objects:
        _draw_object(canvas, drawn)
    return canvas.reduce(SUPERSAMPLING)


def _background(scene: Scene, size: tuple[int, int]) -> Image.Image:
    first, second = (np.array(rgb, np.float32) for rgb in scene.background_rgb)
    rng = np.random.default_rng(scene.seed)
    if scene.background == "plain":
        return Image.new("RGB", size, scene.background_rgb[0])
    if scene.background == "gradient":
        corners = np.array([[0.0, 0.5], [0.5, 1.0]], np.float32)
        corners = np.rot90(corners, int(rng.integers(4)))[..., None]
        pixels = first + (second - first) * corners
        return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    if scene.background == "cluttered":
        return _clutter(rng, size, scene.background_rgb[0])
    cells = int(rng.integers(6, 14)) if scene.background == "checkered" else 48
    if scene.background == "checkered":
        mask = (np.indices((cells, cells)).sum(0) % 2).astype(np.float32)[..., None]
        pixels = first + (second - first) * mask
    else:
        pixels = first + rng.normal(0, 14, (cells, cells, 3)).astype(np.float32)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.resize(size, Image.Resampling.NEAREST)


def _clutter(
    rng: np.random.Generator, size: tuple[int, int], ground: tuple[int, int, int]
) -> Image.Image:
    """Soft blobs and strokes in the colours of wood, skin and stone: what photographs are made of.

    Drawn small and blown up, which makes the edges soft.
    """
    image = Image.new("RGB", (_CLUTTER_PIXELS, _CLUTTER_PIXELS), ground)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 24))):
        warm = rng.random() < 0.7
        hue, palest = (rng.uniform(0.02, 0.13), 0.5) if warm else (rng.random(), 0.28)
        colour = colorsys.hsv_to_rgb(hue, rng.uniform(0, palest), rng.uniform(0, 1))
        rgb = (round(colour[0] * 255), round(colour[1] * 255), round(colour[2] * 255))
        x, y = (float(value) for value in rng.uniform(-6, _CLUTTER_PIXELS + 6, 2))
        across, down = (float(value) for value in rng.uniform(1, 16, 2))
        if rng.random() < 0.6:
            pen.ellipse((x - across, y - down, x + across, y + down), fill=rgb)
        else:
            pen.line((x, y, x + 3 * (across - 8), y + 3 * (down - 8)), rgb, int(rng.integers(1, 6)))
    noise = rng.normal(0, rng.uniform(0, 12), (_CLUTTER_PIXELS, _CLUTTER_PIXELS, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _draw_object(canvas: Image.Image, drawn: DrawnObject) -> None:
    side = min(canvas.size)
    radius = drawn.radius * side
    x, y = drawn.centre[0] * canvas.width, drawn.centre[1] * canvas.height
    box = (round(x - radius), round(y - radius), round(x + radius), round(y + radius))
    mask = _shape_mask(drawn, box[2] - box[0])
    fill = Image.new("RGB", mask.size, drawn.rgb)
    if drawn.fill != "solid":
        _draw_texture(fill, drawn)
    canvas.paste(fill, box[:2], mask)


def _shape_mask(drawn: DrawnObject, size: int) -> Image.Image:
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    centre = size / 2

    def corners(radii: tuple[float, ...], start: float = 0.0) -> list[tuple[float, float]]:
        """Corners at equal angles, their distances from the centre taken from `radii` in turn."""
        step = 2 * math.pi / len(radii)
        return [
            (
                centre + centre * r * math.cos(drawn.rotation + start + i * step),
                centre + centre * r * math.sin(drawn.rotation + start + i * step),
            )
            for i, r in enumerate(radii)
        ]

    match drawn.shape:
        case "circle":
            pen.ellipse((size * 0.08, size * 0.08, size * 0.92, size * 0.92), fill=255)
        case "ring":
            pen.ellipse((size * 0.05, size * 0.05, size * 0.95, size * 0.95), fill=255)
            pen.ellipse((size * 0.27, size * 0.27, size * 0.73, size * 0.73), fill=0)
        case "square":
            pen.polygon(corners((1.0,) * 4), fill=255)
        case "triangle":
            pen.polygon(corners((1.0,) * 3), fill=255)
        case "star":
            pen.polygon(corners((1.0, 0.42) * 5), fill=255)
        case "cross":
            for start in (0.0, math.pi / 2):
                a, b = corners((0.95, 0.95), start)
                pen.line((a, b), fill=255, width=max(1, round(size * 0.28)))
    return mask


def _draw_texture(fill: Image.Image, drawn: DrawnObject) -> None:
    """Stripes or dots in a lighter shade of the object's own colour."""
    red, green, blue = ((channel + 2 * 255) // 3 for channel in drawn.rgb)
    pale = (red, green, blue)
    pen = ImageDraw.Draw(fill)
    size = fill.width
    step = max(6, size // 5)
    if drawn.fill == "striped":
        for offset in range(-size, 2 * size, step):
            pen.line((offset, 0, offset + size, size), fill=pale, width=max(2, round(step * 0.3)))
    else:
        dot = max(1.0, step * 0.24)
        for cx in range(step // 2, size, step):
            for cy in range(step // 2, size, step):
                pen.ellipse((cx - dot, cy - dot, cx + dot, cy + dot), fill=pale)


def main() -> None:
    """Draws one picture into a file."""
    parser = argparse.ArgumentParser(description="Draw a picture for the demo model.")
    parser.add_argument("colour", choices=COLOURS)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("-o", "--output", type=Path, required=True, help="such as a.png")
    parser.add_argument("--seed", type=int, default=0, help="places, sizes, background (0)")
    parser.add_argument("--size", type=int, default=480, help="width and height in pixels (480)")
    options = parser.parse_args()
    scene = random_scene(np.random.default_rng(options.seed), ((options.colour, options.shape),))
    render(scene, options.size, options.size).save(options.output)


if __name__ == "__main__":
    main()
