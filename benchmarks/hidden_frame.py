"""How surely one bad frame of 900 is looked at: `python -m benchmarks.hidden_frame`.

Makes clips of 900 frames out of drawn scenes over which the view moves, hides a single frame that
shows another scene at a place drawn at random, and counts how often it is among the frames that are
chosen, for clips of few and of many scenes. No goal: documentation quotes the figures. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator

import numpy as np

from inference.decoder.frame_chooser import FrameChooser
from inference.decoder.thumbnails import Thumbnail, thumbnail_of
from inference.demo.drawing import random_scene, render

FRAMES = 900
SIDE = 96
SCENES = (1, 5, 10, 20, 40, 80, 900)
MAX_FRAMES = (16,)


def scene(rng: np.random.Generator, frames: int) -> Iterator[Thumbnail]:
    """A scene over which the view moves by a third of its side in the course of its frames."""
    picture = render(random_scene(rng), SIDE * 4 // 3, SIDE * 4 // 3)
    for number in range(frames):
        moved = round(SIDE / 3 * number / frames)
        yield thumbnail_of(picture.crop((moved, moved, moved + SIDE, moved + SIDE)), (SIDE, SIDE))


def clip(rng: np.random.Generator, scenes: int) -> list[Thumbnail]:
    """All frames of a clip, as the chooser sees them."""
    frames: list[Thumbnail] = []
    for number in range(scenes):
        frames += scene(rng, FRAMES * (number + 1) // scenes - len(frames))
    return frames


def is_found(frames: list[Thumbnail], hidden: int, max_frames: int, seed: int) -> bool:
    """Whether the frame at `hidden` is one of those that are chosen."""
    chooser = FrameChooser(max_frames, random.Random(seed))  # noqa: S311
    for index, thumbnail in enumerate(frames):
        chooser.offer(index, thumbnail)
    return hidden in chooser.chosen(len(frames) - 1, frames[-1])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200)
    options = parser.parse_args()
    rows = []
    print("scenes  " + "  ".join(f"max_frames {count:3}" for count in MAX_FRAMES))
    for scenes in SCENES:
        found = dict.fromkeys(MAX_FRAMES, 0)
        for seed in range(options.clips):
            rng = np.random.default_rng(seed)
            frames = clip(rng, scenes)
            hidden = int(rng.integers(1, FRAMES - 1))
            frames[hidden] = next(scene(rng, 1))
            for count in MAX_FRAMES:
                found[count] += is_found(frames, hidden, count, seed)
        shares = {count: hits / options.clips for count, hits in found.items()}
        print(
            f"{scenes:6}  " + "  ".join(f"{share:14.1%}" for share in shares.values()), flush=True
        )
        rows.append({"scenes": scenes, **{str(count): share for count, share in shares.items()}})
    print(json.dumps({"benchmark": "hidden-frame", "clips": options.clips, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
