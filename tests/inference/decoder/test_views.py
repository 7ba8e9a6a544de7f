"""Regions and tiles: every pixel of a frame is in one of them, and there are never many."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from inference.decoder.media import Region
from inference.decoder.views import MAX_REGIONS, OVERLAP, regions_of, tiles_of

SQUARE = (224, 224)
sides = st.integers(1, 30_000)
inputs = st.sampled_from([SQUARE, (64, 64), (336, 336), (384, 224), (224, 384), (256, 192)])


def spans(regions: tuple[Region, ...], frame: tuple[int, int]) -> list[tuple[int, int]]:
    """Start and end along the side that is cut; across it, all regions have the frame's length."""
    width, height = frame
    if all((region.top, region.height) == (0, height) for region in regions):
        return [(region.left, region.left + region.width) for region in regions]
    assert all((region.left, region.width) == (0, width) for region in regions)
    return [(region.top, region.top + region.height) for region in regions]


def cuts(tiles: tuple[Region, ...]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    across = {(tile.left, tile.left + tile.width) for tile in tiles}
    down = {(tile.top, tile.top + tile.height) for tile in tiles}
    return across, down


@given(sides, sides, inputs)
def test_every_pixel_is_in_a_region_and_every_region_in_the_frame(
    width: int, height: int, input_size: tuple[int, int]
) -> None:
    regions = regions_of(width, height, input_size)
    assert 1 <= len(regions) <= MAX_REGIONS == 16
    parts = spans(regions, (width, height))
    long_side = width if parts[-1][1] == width and regions[-1].height == height else height
    assert parts[0][0] == 0
    assert parts[-1][1] == long_side
    assert all(start < end for start, end in parts)
    assert all(after[0] <= before[1] for before, after in itertools.pairwise(parts))


@given(sides, sides, inputs)
def test_neighbouring_regions_overlap(width: int, height: int, input_size: tuple[int, int]) -> None:
    regions = regions_of(width, height, input_size)
    for before, after in itertools.pairwise(spans(regions, (width, height))):
        a_pixel_for_rounding = 1
        length = before[1] - before[0]
        assert before[1] - after[0] >= OVERLAP * length - a_pixel_for_rounding


@given(sides, sides, inputs)
def test_regions_have_the_shape_of_the_model(
    width: int, height: int, input_size: tuple[int, int]
) -> None:
    regions = regions_of(width, height, input_size)
    if 1 < len(regions) < MAX_REGIONS:
        aspect = input_size[0] / input_size[1]
        for region in regions:
            assert abs(region.width - region.height * aspect) <= max(1, aspect)


@given(st.integers(1, 30_000), st.floats(1, 1.5))
def test_a_frame_that_is_not_long_is_one_region(short: int, ratio: float) -> None:
    long = int(short * ratio)
    assert regions_of(long, short, SQUARE) == (Region(0, 0, long, short),)
    assert regions_of(short, long, SQUARE) == (Region(0, 0, short, long),)


def test_well_known_shapes() -> None:
    for width, height in ((1920, 1080), (1280, 720), (640, 360)):
        wide, tall = regions_of(width, height, SQUARE), regions_of(height, width, SQUARE)
        assert len(wide) == len(tall) == 2
        assert {(region.width, region.height) for region in (*wide, *tall)} == {(height, height)}
    banner = regions_of(800, 200, SQUARE)
    assert [region.left for region in banner] == [0, 150, 300, 450, 600]
    assert {(region.width, region.height) for region in banner} == {(200, 200)}
    assert len(regions_of(16, 9, (16, 9))) == 1
    assert len(regions_of(30_000, 10, SQUARE)) == 16


@given(st.integers(0, 999), st.integers(0, 999), sides, sides, st.integers(1, 3), inputs)
def test_the_tiles_of_a_grid_cover_the_region_without_overlap(
    left: int, top: int, width: int, height: int, finest: int, input_size: tuple[int, int]
) -> None:
    tiles = tiles_of(Region(left, top, width, height), finest, input_size)
    assert len(tiles) in [0, 4, 13][:finest]
    for grid in (tiles[:4], tiles[4:]):
        if not grid:
            continue
        across, down = map(sorted, cuts(grid))
        assert len(grid) == len(across) * len(down) == len(set(grid))
        for parts, start, length in ((across, left, width), (down, top, height)):
            assert (parts[0][0], parts[-1][1]) == (start, start + length)
            assert all(one[1] == other[0] for one, other in itertools.pairwise(parts))


@given(sides, sides, inputs)
def test_no_tile_is_magnified_more_than_twice(
    width: int, height: int, input_size: tuple[int, int]
) -> None:
    for tile in tiles_of(Region(0, 0, width, height), 3, input_size):
        assert tile.width > input_size[0] / 2 - 1
        assert tile.height > input_size[1] / 2 - 1


def test_tiles_that_would_be_too_small_are_left_out() -> None:
    def count(side: int, finest: int = 3) -> int:
        return len(tiles_of(Region(0, 0, side, 9999), finest, SQUARE))

    assert [count(223), count(224), count(335), count(336)] == [0, 4, 4, 13]
    assert [count(9999, finest) for finest in (1, 2, 3)] == [0, 4, 13]
