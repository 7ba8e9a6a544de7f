"""The choice of frames: few, all different, and none that can be hidden for certain."""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from inference.decoder.frame_chooser import AllFrames, FrameChooser
from inference.decoder.thumbnails import Thumbnail

CELLS = 3072


def shown(values: npt.NDArray[np.int64]) -> Thumbnail:
    """A thumbnail of 32×32 cells."""
    return Thumbnail.of(Image.fromarray(values.reshape(32, 32, -1).astype(np.uint8)))


def noise(seed: int) -> Thumbnail:
    return shown(np.random.default_rng(seed).integers(0, 256, CELLS))


def grey(level: int) -> Thumbnail:
    return shown(np.full(CELLS, level))


def grainy(level: int, grain: int, seed: int) -> Thumbnail:
    grains = np.random.default_rng(seed).integers(-grain, grain + 1, CELLS)
    return shown(grains + level)


def watch(
    chooser: FrameChooser | AllFrames, thumbnails: Sequence[Thumbnail], most_kept: int = 10**9
) -> list[int]:
    """Offers all frames as a caller would, and returns the chosen ones."""
    kept: set[int] = set()
    for index, thumbnail in enumerate(thumbnails):
        choice = chooser.offer(index, thumbnail)
        assert kept.issuperset(choice.drop)
        assert index not in choice.drop
        kept.difference_update(choice.drop)
        if choice.keep:
            kept.add(index)
        assert len(kept) <= most_kept
    last = len(thumbnails) - 1
    chosen = list(chooser.chosen(last, thumbnails[last]))
    assert chosen == sorted(set(chosen))
    assert kept.issuperset(set(chosen) - {last})
    return chosen


def chosen_of(thumbnails: Sequence[Thumbnail], max_frames: int, seed: int = 0) -> list[int]:
    chooser = FrameChooser(max_frames, random.Random(seed))
    chosen = watch(chooser, thumbnails, most_kept=2 * max_frames)
    assert 1 <= len(chosen) <= max_frames
    return chosen


@pytest.mark.parametrize("max_frames", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("count", [2, 3, 17, 100])
def test_the_first_and_the_last_frame_are_always_chosen(max_frames: int, count: int) -> None:
    chosen = chosen_of([noise(seed) for seed in range(count)], max_frames)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert len(chosen) >= min(max_frames - 1, count)
    assert len(chosen) == count or count > max_frames


def test_of_one_frame_the_first_is_chosen() -> None:
    assert chosen_of([noise(seed) for seed in range(50)], 1) == [0]
    assert chosen_of([noise(1)], 16) == [0]


@pytest.mark.parametrize("max_frames", [1, 2, 3, 16])
def test_of_identical_frames_one_is_chosen(max_frames: int) -> None:
    assert chosen_of([grey(90)] * 200, max_frames) == [0]
    assert chosen_of([grainy(90, 2, seed) for seed in range(200)], max_frames) == [0]


@pytest.mark.parametrize("max_frames", [3, 4, 8, 16])
@pytest.mark.parametrize("seed", range(6))
def test_an_odd_frame_is_found_wherever_it_hides(max_frames: int, seed: int) -> None:
    still = [grainy(90, 2, number) for number in range(900)]
    rustling = [grainy(90, 12, number) for number in range(900)]
    drifting = [grey(60 + number // 15) for number in range(900)]
    place = random.Random(seed).randrange(1, 899)
    for film in (still, rustling, drifting):
        hiding = [*film[:place], noise(seed), *film[place + 1 :]]
        assert place in chosen_of(hiding, max_frames, seed)


def test_frames_that_differ_are_preferred_to_frames_that_are_alike() -> None:
    scenes = [noise(seed) for seed in range(6)]
    film = [
        shown(np.clip(scene.coarse.astype(np.int64) + change, 0, 255))
        for scene in scenes
        for change in range(50)
    ]
    for seed in range(5):
        assert {index // 50 for index in chosen_of(film, 8, seed)} == set(range(6))


def test_no_place_is_passed_over_for_certain() -> None:
    """Not even by one who can tell which frames differ most."""
    flashes = [grey(level) for level in (0, 255, 60, 190, 125, 25, 225)]
    dull = [grey(90 + 5 * (number % 8)) for number in range(30)]
    film = [*flashes, *dull, grey(0)]
    drawn = {index for seed in range(400) for index in chosen_of(film, 6, seed)}
    assert drawn.issuperset(range(len(film) - 1))


def test_frames_of_which_only_some_are_transparent_differ() -> None:
    opaque, transparent = grey(90), shown(np.full(4096, 90))
    assert chosen_of([opaque, opaque, transparent, opaque, opaque], 3) == [0, 2]


def test_all_frames_that_differ_are_chosen_where_all_are_wanted() -> None:
    film = [noise(seed) for seed in range(200)]
    assert watch(AllFrames(), film) == list(range(200))
    twice = [thumbnail for thumbnail in film for _ in range(2)]
    assert watch(AllFrames(), twice) == list(range(0, 400, 2))
    assert watch(AllFrames(), [grey(0), grey(90)] * 50) == [0, 1]
    assert watch(AllFrames(), [grey(0)] * 50) == [0]
