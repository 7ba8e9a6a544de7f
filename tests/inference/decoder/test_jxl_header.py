"""The size in a JPEG XL header is the one that its decoder comes to."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inference.decoder.jxl_header import JxlHeader, read_jxl_header
from tests.media import drawn, still

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "libjxl"
SIDES = (1, 7, 8, 200, 256, 257, 264, 512, 513, 1000)
RATIOS = ((300, 300), (360, 300), (400, 300), (450, 300), (1600, 900), (375, 300), (600, 300))
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"


def picture(width: int, height: int, **options: object) -> bytes:
    return still(Image.new("RGB", (width, height), "red"), "image/jxl", **options)


def boxed(*boxes: tuple[bytes, bytes]) -> bytes:
    return CONTAINER + b"".join((8 + len(body)).to_bytes(4) + kind + body for kind, body in boxes)


class BitsOfAHeader:
    """Writes a header, least significant bits first."""

    def __init__(self) -> None:
        self._value = self._length = 0

    def add(self, value: int, count: int) -> "BitsOfAHeader":
        self._value |= value << self._length
        self._length += count
        return self

    def done(self) -> bytes:
        return b"\xff\x0a" + self._value.to_bytes(self._length // 8 + 8, "little")


@pytest.mark.parametrize("size", [*itertools.product(SIDES, SIDES[::3]), *RATIOS, (9000, 3)])
def test_the_header_has_the_size_of_the_picture(size: tuple[int, int]) -> None:
    assert read_jxl_header(picture(*size)) == JxlHeader(*size, animated=False)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("use_container", [True, False])
@pytest.mark.parametrize("lossless", [True, False])
def test_every_way_to_write_a_file_is_read(mode: str, use_container: bool, lossless: bool) -> None:
    image = drawn(size=300).resize((300, 123)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    data = still(image, "image/jxl", use_container=use_container, lossless=lossless)
    assert data.startswith(CONTAINER) or not use_container
    assert read_jxl_header(data) == JxlHeader(300, 123, animated=False)


def test_a_codestream_may_be_in_parts() -> None:
    stream = picture(300, 123)
    parts = [stream[:1], stream[1:3], b"", stream[3:]]
    boxes = [(b"jxlp", number.to_bytes(4) + part) for number, part in enumerate(parts)]
    for file in (boxed((b"ftyp", b"jxl "), *boxes), boxed((b"jxlc", stream))):
        assert read_jxl_header(file) == JxlHeader(300, 123, animated=False)
    to_the_end = CONTAINER + bytes(4) + b"jxlc" + stream
    long_size = CONTAINER + b"\0\0\0\1jxlc" + (16 + len(stream)).to_bytes(8) + stream
    for file in (to_the_end, long_size):
        assert read_jxl_header(file) == JxlHeader(300, 123, animated=False)


@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize("intrinsic", [False, True])
@pytest.mark.parametrize("preview", [False, True])
def test_an_animation_says_so_behind_all_other_fields(
    animated: bool, intrinsic: bool, preview: bool
) -> None:
    bits = BitsOfAHeader().add(0, 1).add(3, 2).add(99_999, 30).add(0, 3).add(1, 2).add(4999, 13)
    bits.add(0, 1).add(1, 1).add(5, 3)  # not all by default, extra fields, an orientation
    bits.add(intrinsic, 1)
    if intrinsic:
        bits.add(1, 1).add(9, 5).add(1, 3)
    bits.add(preview, 1)
    if preview:
        bits.add(0, 1).add(2, 2).add(77, 10).add(0, 3).add(0, 2).add(63, 6)
    assert read_jxl_header(bits.add(animated, 1).done()) == JxlHeader(5000, 100_000, animated)


@given(st.sampled_from([b"", b"\xff\x0a", CONTAINER, CONTAINER + b"\0\0\0\x20jxlp"]), st.binary())
def test_junk_raises_nothing_but_value_errors(start: bytes, junk: bytes) -> None:
    try:
        header = read_jxl_header(start + junk)
    except ValueError:
        return
    assert min(header.width, header.height) > 0


@given(st.integers(0, 25))
def test_a_header_that_ends_too_early_raises(end: int) -> None:
    stream = picture(300, 123)
    with pytest.raises(ValueError, match=r".+"):
        read_jxl_header(stream[: min(end, 5)])
    with pytest.raises(ValueError, match=r".+"):
        read_jxl_header(boxed((b"jxlc", stream))[:end])


def test_strangers_files_have_the_size_that_they_decode_to() -> None:
    files = {path.name: path.read_bytes() for path in sorted(CORPUS.glob("*.jxl"))}
    # Some are links that were stored as text.
    files = {
        name: data for name, data in files.items() if len(data) >= 64 or not data.startswith(b"../")
    }
    if not files:
        pytest.skip("the corpus is not here")
    for name, data in files.items():
        header = read_jxl_header(data)
        with Image.open(io.BytesIO(data)) as image:
            assert {header.width, header.height} == set(image.size), name
        assert header.animated == ("animation" in name), name
