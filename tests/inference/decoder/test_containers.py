"""Files that end too early are told from whole ones by what their containers say."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from inference.decoder.containers import is_cut_off, whole_frames
from tests.media import ALL, drawn, file_of, moving, still

FRAMES = [drawn(seed=number, size=96) for number in range(6)]
CONTAINERS = ("image/avif", "image/webp", "video/mp4", "video/webm")
ANIMATION = moving(FRAMES, "image/webp")


@pytest.mark.parametrize("media_type", ALL)
def test_a_whole_file_is_not_cut_off(media_type: str) -> None:
    assert not is_cut_off(file_of(FRAMES[0], media_type), media_type)


@pytest.mark.parametrize("media_type", CONTAINERS)
@pytest.mark.parametrize("header_first", [False, True])
def test_a_file_without_its_end_is_cut_off(media_type: str, header_first: bool) -> None:
    data = moving(FRAMES, media_type, header_first=header_first)
    assert not is_cut_off(data, media_type)
    for end in (len(data) * 5 // 10, len(data) * 6 // 10, len(data) * 9 // 10, len(data) - 2):
        assert is_cut_off(data[:end], media_type)


@pytest.mark.parametrize("media_type", ["image/avif", "image/webp"])
def test_a_still_picture_without_its_end_is_cut_off(media_type: str) -> None:
    data = still(FRAMES[0], media_type)
    assert is_cut_off(data[: len(data) // 2], media_type)


def test_the_padding_of_a_webp_may_be_missing() -> None:
    data = b"RIFF" + (4 + 8 + 4).to_bytes(4, "little") + b"WEBPVP8L" + b"\3\0\0\0abc"
    assert not is_cut_off(data, "image/webp")


def test_boxes_and_elements_of_unknown_size_reach_to_the_end() -> None:
    assert not is_cut_off(b"\0\0\0\x08ftyp\0\0\0\0mdat" + bytes(99), "video/mp4")
    header, size = b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67", b"\x01" + b"\xff" * 7
    assert not is_cut_off(header + size + bytes(99), "video/webm")


def test_boxes_may_have_long_sizes() -> None:
    data = b"\0\0\0\x01mdat" + (16 + 20).to_bytes(8) + bytes(20)
    assert not is_cut_off(data, "video/mp4")
    assert is_cut_off(data[:-1], "video/mp4")


@given(st.sampled_from(ALL), st.integers(0, 64), st.binary(max_size=200))
def test_whatever_the_bytes_there_is_an_answer(media_type: str, kept: int, junk: bytes) -> None:
    data = ANIMATION[:kept] + junk
    assert is_cut_off(data, media_type) in (True, False)
    assert whole_frames(data) is None or len(data) >= 20


@given(st.integers(0, len(ANIMATION)))
def test_what_is_whole_of_an_animation_can_be_decoded(end: int) -> None:
    whole = whole_frames(ANIMATION[:end])
    if whole is None:
        assert end < len(ANIMATION) / 2
        return
    assert len(whole) <= end
    assert not is_cut_off(whole, "image/webp")
    with Image.open(io.BytesIO(whole)) as image:
        frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(image)]
    with Image.open(io.BytesIO(ANIMATION)) as image:
        all_frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(image)]
    assert frames == all_frames[: len(frames)]
    assert len(frames) >= len(FRAMES) * end // len(ANIMATION) - 2


def test_of_a_whole_animation_nothing_is_lost() -> None:
    assert whole_frames(ANIMATION) == ANIMATION


def test_a_still_webp_has_no_whole_frames() -> None:
    data = still(FRAMES[0], "image/webp")
    assert whole_frames(data[: len(data) // 2]) is None
