"""Ways to hide a subject by where it is in the picture: at an edge, among others, small, turned."""

from __future__ import annotations

from PIL import Image, ImageOps

from benchmarks.evasion.subjects import File, Rng, Subject, filler, jpeg

CELL = 160  # pixels of one picture in a collage
BIG = 1200  # pixels of a picture in which the subject is small
STRIP = 128  # height of a strip
GREY = (128, 128, 128)


def plain(subject: Subject, rng: Rng) -> File:
    """As it was drawn: what all others are compared with."""
    return jpeg(subject.image)


def half_outside(subject: Subject, rng: Rng) -> File:
    """Cut off at the middle of the subject; the larger side of the picture stays."""
    width, height = subject.image.size
    x, y = subject.target.centre[0] * width, subject.target.centre[1] * height
    if rng.random() < 0.5:
        box = (0, 0, round(x), height) if x > width / 2 else (round(x), 0, width, height)
    else:
        box = (0, 0, width, round(y)) if y > height / 2 else (0, round(y), width, height)
    return jpeg(subject.image.crop(box))


class Collage:
    """One of `count`×`count` pictures, the others harmless."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        canvas = Image.new("RGB", (CELL * self._count,) * 2)
        hidden = int(rng.integers(self._count**2))
        for number in range(self._count**2):
            own = subject.image.resize((CELL, CELL), Image.Resampling.BICUBIC)
            cell = own if number == hidden else filler(rng, CELL, CELL)
            canvas.paste(cell, (number % self._count * CELL, number // self._count * CELL))
        return jpeg(canvas)


class Border:
    """In a frame of one colour; the picture keeps `share` of the width and of the height."""

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        each = round(min(subject.image.size) * (1 / self._share - 1) / 2)
        shade = int(rng.integers(256))
        return jpeg(ImageOps.expand(subject.image, each, (shade, shade, shade)))


class Small:
    """Somewhere in a big harmless picture, with `share` of its width."""

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        canvas = filler(rng, BIG, BIG)
        small = subject.image.copy()
        small.thumbnail((BIG * self._share,) * 2, Image.Resampling.BICUBIC)
        left, top = (int(rng.integers(BIG - side)) for side in small.size)
        canvas.paste(small, (left, top))
        return jpeg(canvas)


class Rotation:
    """Turned by some degrees, on grey corners."""

    def __init__(self, degrees: int) -> None:
        self._degrees = degrees

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        turned = subject.image.rotate(
            self._degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=GREY
        )
        return jpeg(turned)


def mirrored(subject: Subject, rng: Rng) -> File:
    """Left and right swapped."""
    return jpeg(ImageOps.mirror(subject.image))


def upside_down(subject: Subject, rng: Rng) -> File:
    """Top and bottom swapped."""
    return jpeg(ImageOps.flip(subject.image))


class Strip:
    """In a strip of `count` harmless pictures, across two of them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        canvas = Image.new("RGB", (STRIP * self._count, STRIP))
        for number in range(self._count):
            canvas.paste(filler(rng, STRIP, STRIP), (number * STRIP, 0))
        own = subject.image.resize((STRIP, STRIP), Image.Resampling.BICUBIC)
        canvas.paste(own, (int(rng.integers(STRIP * (self._count - 1))), 0))
        return jpeg(canvas)
