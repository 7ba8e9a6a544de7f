"""Ways to hide a subject from programs that look at a file in another way than people see it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from benchmarks.evasion.subjects import (
    HARMLESS_SHAPES,
    File,
    Rng,
    Subject,
    cut_out,
    filler,
    jpeg,
    on_ground,
    png,
)
from inference.demo.drawing import Scene, random_scene, render
from tests.media import moving

MODEL_SIDE = 64  # pixels of the demo model's input
STEP = 8  # an attacked picture is so many times as large
TINY = 20  # pixels
CLIP_SIDE, CLIP_FRAMES, CLIP_SCENES = 96, 1000, 10
NEARLY_BLACK = (6, 25, 63)
SHOWN_THROUGH = 192  # of 255: what white adds to it then is a pale blue
ORIENTATION = 0x0112  # the EXIF tag


class Scaling:
    """Two pictures in one: one for people, and one where a program looks that leaves pixels out.

    After Xiao et al., "Seeing is Not Believing", USENIX Security 2019. `looked_at` is how many
    pixels in a row such a program reads of each eight: 1 for nearest, 2 for bilinear without
    antialiasing. The subject is what people see, or what such a program sees.
    """

    def __init__(self, looked_at: int, *, subject_for_people: bool) -> None:
        self._looked_at = looked_at
        self._subject_for_people = subject_for_people

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        side = MODEL_SIDE * STEP
        other = filler(rng, side, side)
        large = subject.image.resize((side, side), Image.Resampling.BICUBIC)
        for_people, for_programs = (large, other) if self._subject_for_people else (other, large)
        small = np.asarray(for_programs.resize((MODEL_SIDE, MODEL_SIDE), Image.Resampling.BOX))
        pixels = np.array(for_people)
        # The middle of eight is between the fourth and the fifth; nearest takes the fifth.
        first = STEP // 2 + 1 - self._looked_at
        for down in range(self._looked_at):
            for across in range(self._looked_at):
                pixels[first + down :: STEP, first + across :: STEP] = small
        return png(Image.fromarray(pixels))


class Tiny:
    """Reduced to a few pixels, and made large again."""

    def __init__(self, resampling: Image.Resampling) -> None:
        self._resampling = resampling

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        tiny = subject.image.resize((TINY, TINY), Image.Resampling.BOX)
        return png(tiny.resize(subject.image.size, self._resampling))


def turned_by_exif(subject: Subject, rng: Rng) -> File:
    """Stored turned or mirrored, with an orientation that says how to show it."""
    exif = Image.Exif()
    exif[ORIENTATION] = int(rng.integers(2, 9))
    return jpeg(subject.image, exif=exif)


def on_transparent_ground(subject: Subject, rng: Rng) -> File:
    """Cut out; what programs see that ignore transparency is noise around it."""
    pixels = np.array(cut_out(subject.scene, *subject.image.size))
    clear = pixels[..., 3] == 0
    pixels[clear, :3] = rng.integers(0, 256, (int(clear.sum()), 3))
    return png(Image.fromarray(pixels, "RGBA"))


def seen_on_black(subject: Subject, rng: Rng) -> File:
    """Something red, and a shape that is as pale as the ground where white shows through it."""
    scene, side = _red_and_dark(subject, rng), min(subject.image.size)
    red, dark = (replace(scene, objects=(one,)) for one in scene.objects)
    pale = tuple(channel + SHOWN_THROUGH for channel in NEARLY_BLACK)
    around = np.asarray(render(on_ground(red, pale), side, side), np.float32)
    shape = np.asarray(cut_out(dark, side, side), np.float32)[..., 3:] / 255
    on_black = around * (1 - shape) + np.array(NEARLY_BLACK) * shape
    alpha = 1 - SHOWN_THROUGH / 255 * shape
    pixels = np.concatenate([np.minimum(on_black / alpha, 255), alpha * 255], axis=2)
    return png(Image.fromarray(pixels.round().astype(np.uint8), "RGBA"))


def seen_on_white(subject: Subject, rng: Rng) -> File:
    """Something red, and a shape so dark that it is hardly seen where it lies on black."""
    side = min(subject.image.size)
    return png(cut_out(_red_and_dark(subject, rng), side, side))


def _red_and_dark(subject: Subject, rng: Rng) -> Scene:
    """A red circle and a nearly black shape: a triangle, where it is to be rejected."""
    shape = "triangle" if subject.rejectable else str(rng.choice(HARMLESS_SHAPES))
    red, blue = random_scene(rng, (("red", "circle"), ("blue", shape))).objects
    dark = replace(blue, rgb=NEARLY_BLACK, fill="solid")
    return replace(subject.scene, objects=(red, dark))


def beneath_transparency(subject: Subject, rng: Rng) -> File:
    """All of it fully transparent: only a program that ignores transparency shows it."""
    image = subject.image.copy()
    image.putalpha(0)
    return png(image)


class OneFrame:
    """One frame of a thousand, at a place drawn at random; the others show ten harmless scenes."""

    def __init__(self, media_type: str) -> None:
        self._media_type = media_type

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        frames: list[Image.Image] = []
        for number in range(CLIP_SCENES):
            end = CLIP_FRAMES * (number + 1) // CLIP_SCENES
            frames += _pan(rng, end - len(frames))
        hidden = int(rng.integers(1, CLIP_FRAMES - 1))
        frames[hidden] = subject.image.resize((CLIP_SIDE, CLIP_SIDE), Image.Resampling.BICUBIC)
        return File(moving(frames, self._media_type), self._media_type)


def _pan(rng: Rng, frames: int) -> list[Image.Image]:
    """A scene over which the view moves by a third of its side."""
    wide = filler(rng, CLIP_SIDE * 4 // 3, CLIP_SIDE * 4 // 3)
    places = [round(CLIP_SIDE / 3 * number / frames) for number in range(frames)]
    return [wide.crop((at, at, at + CLIP_SIDE, at + CLIP_SIDE)) for at in places]
