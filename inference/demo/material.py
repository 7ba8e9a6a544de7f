"""Draws labelled pictures for trying out evaluation and calibration with the demo policy.

Try `python -m inference.demo.material /tmp/material --accept 5000 --reject 500`. The pictures go to
`accept` and `reject` below the folder; `labels.csv` says for each what is in it. What is rejected
is what policies/demo.toml is there to reject: a picture with something red and a triangle in it,
not necessarily one object.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from inference.demo.drawing import Scene, canvas_size, random_aspect, random_scene, render

CONCEPTS = ("red", "triangle", "blue", "circle")
COLUMNS = ("path", "label", *CONCEPTS)
LABELS = ("accept", "reject")
_BATCH = 50  # pictures that a process draws at once


@dataclass(frozen=True)
class Picture:
    """One to draw: whether it is of the rejected kind, and its number among those."""

    rejected: bool
    number: int

    @property
    def label(self) -> str:
        """The word for it, and its folder."""
        return LABELS[self.rejected]


def truth(scene: Scene) -> dict[str, bool]:
    """Which of the demo policy's concepts a scene shows."""
    colours = {drawn.colour for drawn in scene.objects}
    shapes = {drawn.shape for drawn in scene.objects}
    return {concept: concept in colours | shapes for concept in CONCEPTS}


def is_rejected_kind(scene: Scene) -> bool:
    """Whether there is something red and a triangle in it."""
    found = truth(scene)
    return found["red"] and found["triangle"]


def draw(folder: Path, seed: int, size: int, picture: Picture) -> list[str]:
    """Draws one picture into its folder; its line of labels.csv."""
    rng = np.random.default_rng([seed, picture.rejected, picture.number])
    aspect = random_aspect(rng)
    while True:
        scene = random_scene(rng, aspect=aspect)
        if is_rejected_kind(scene) is picture.rejected:
            break
    path = f"{picture.label}/{picture.number:06}.jpg"
    drawn = render(scene, *canvas_size(size, aspect))
    drawn.save(folder / path, "JPEG", quality=int(rng.integers(80, 96)))
    return [path, picture.label, *(str(value).lower() for value in truth(scene).values())]


def draw_all(folder: Path, accept: int, reject: int, seed: int, size: int) -> None:
    """Draws so many pictures of each kind, in several processes, and writes labels.csv."""
    for label in LABELS:
        (folder / label).mkdir(parents=True, exist_ok=True)
    labels = folder / "labels.csv"
    unfinished = labels.with_suffix(".csv.part")
    with ProcessPoolExecutor(os.cpu_count()) as processes, unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        drawing = partial(draw, folder, seed, size)
        writer.writerows(processes.map(drawing, _pictures(accept, reject), chunksize=_BATCH))
    unfinished.replace(labels)


def _pictures(accept: int, reject: int) -> Iterator[Picture]:
    yield from (Picture(False, number) for number in range(accept))
    yield from (Picture(True, number) for number in range(reject))


def main() -> int:
    """Draws into a folder; the exit code."""
    parser = argparse.ArgumentParser(description="Draw labelled pictures for the demo policy.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accept", type=int, default=5000, help="harmless pictures (5000)")
    parser.add_argument("--reject", type=int, default=500, help="of the rejected kind (500)")
    parser.add_argument("--seed", type=int, default=1, help="others with every seed (1)")
    parser.add_argument("--size", type=int, default=96, help="the shorter side in pixels (96)")
    options = parser.parse_args()
    if min(options.accept, options.reject, options.seed) < 0 or options.size < 16:
        parser.error("numbers are not negative, and a picture has 16 pixels at least")
    draw_all(options.folder, options.accept, options.reject, options.seed, options.size)
    print(f"drew {options.accept + options.reject} pictures into {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
