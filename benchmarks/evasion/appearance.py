"""Ways to hide a subject by its pixels: noise, blur, colours, what is laid over it."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.evasion.subjects import File, Rng, Subject, filler, jpeg, png

BLURRED = 0.03  # radius, in shorter sides
LINES = 4  # of overlaid text


class Noise:
    """Gaussian noise of a standard deviation, of 255."""

    def __init__(self, deviation: float) -> None:
        self._deviation = deviation

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        pixels = np.asarray(subject.image, np.float32)
        noisy = pixels + rng.normal(0, self._deviation, pixels.shape)
        return png(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)))


def speckled(subject: Subject, rng: Rng) -> File:
    """One pixel in five is white or black."""
    pixels = np.array(subject.image)
    chance = rng.random(pixels.shape[:2])
    pixels[chance < 0.1] = 0
    pixels[chance > 0.9] = 255
    return png(Image.fromarray(pixels))


def blurred(subject: Subject, rng: Rng) -> File:
    """As out of focus."""
    radius = BLURRED * min(subject.image.size)
    return jpeg(subject.image.filter(ImageFilter.GaussianBlur(radius)))


def jpeg_10(subject: Subject, rng: Rng) -> File:
    """JPEG at quality 10."""
    return jpeg(subject.image, 10)


def greyscale(subject: Subject, rng: Rng) -> File:
    """Without colours."""
    return jpeg(subject.image.convert("L"))


class HueShift:
    """All hues turned by some degrees; by 190, none of the hues that are drawn becomes red."""

    def __init__(self, degrees: int) -> None:
        self._degrees = degrees

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        pixels = np.array(subject.image.convert("HSV"))
        # Wraps around at 256, as hues do.
        pixels[..., 0] += np.uint8(round(self._degrees / 360 * 256))
        return jpeg(Image.fromarray(pixels, "HSV").convert("RGB"))


class Contrast:
    """`share` of the contrast, around a middle grey."""

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        pixels = np.asarray(subject.image, np.float32)
        return jpeg(Image.fromarray((128 + (pixels - 128) * self._share).astype(np.uint8)))


def overlaid(subject: Subject, rng: Rng) -> File:
    """Half of each pixel from a harmless picture."""
    return jpeg(Image.blend(subject.image, filler(rng, *subject.image.size), 0.5))


class Text:
    """Written over, in lines from top to bottom."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __call__(self, subject: Subject, rng: Rng) -> File:
        """Hides the subject."""
        image = subject.image.copy()
        pen = ImageDraw.Draw(image)
        size = image.width / len(self._words) * 1.7  # about as wide as the picture
        font = ImageFont.load_default(size)
        rgb = _pale(rng)
        for number in range(LINES):
            place = (image.width / 2, image.height * (number + 0.5) / LINES)
            pen.text(
                place, self._words, rgb, font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0)
            )
        return jpeg(image)


def _pale(rng: Rng) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), 0.1, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
