import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.packing import pack_hashes, pack_views, unpack_hashes, unpack_views
from imagesafety.scores import PerceptualHash, View

UINT32 = st.integers(0, 2**32 - 1)
BACKGROUNDS = st.sampled_from(["", "white", "black"])
VIEWS = st.builds(
    View,
    frame_index=UINT32,
    frame_time=st.floats(allow_nan=False),
    region=st.tuples(UINT32, UINT32, UINT32, UINT32),
    similarities=st.lists(st.floats(width=32, allow_nan=False), max_size=30).map(tuple),
    background=BACKGROUNDS,
)
HASHES = st.builds(
    PerceptualHash,
    pdq=st.binary(min_size=32, max_size=32),
    quality=st.integers(0, 100),
    frame_index=UINT32,
    background=BACKGROUNDS,
)


@given(st.lists(VIEWS, max_size=20))
def test_views_come_back_exactly(views: list[View]) -> None:
    assert unpack_views(pack_views(views)) == tuple(views)


@given(st.lists(HASHES, max_size=20))
def test_hashes_come_back_exactly(hashes: list[PerceptualHash]) -> None:
    assert unpack_hashes(pack_hashes(hashes)) == tuple(hashes)


def test_similarities_that_are_no_number_come_back_as_such() -> None:
    view = View(0, 0.0, (0, 0, 1, 1), (math.nan, math.inf))
    first, second = unpack_views(pack_views([view]))[0].similarities
    assert math.isnan(first)
    assert second == math.inf


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_or_mean_something(packed: bytes) -> None:
    for unpack in (unpack_views, unpack_hashes):
        try:
            unpack(packed)
        except ValueError:
            continue


@given(st.lists(VIEWS, min_size=1, max_size=3), st.data())
def test_what_is_cut_off_or_longer_is_refused(views: list[View], data: st.DataObject) -> None:
    packed = pack_views(views)
    length = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:length], packed + b"\0", b"\2" + packed[1:]):
        with pytest.raises(ValueError, match="packed"):
            unpack_views(wrong)


@pytest.mark.parametrize(
    "view",
    [
        View(-1, 0.0, (0, 0, 1, 1), ()),
        View(0, 0.0, (0, 0, 1, 2**32), ()),
        View(0, 0.0, (0, 0, 1, 1), (), "green"),
    ],
)
def test_views_that_can_not_be_are_refused(view: View) -> None:
    with pytest.raises(ValueError, match=r"view|tuple"):
        pack_views([view])


def test_a_pdq_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        pack_hashes([PerceptualHash(bytes(31), 50)])
