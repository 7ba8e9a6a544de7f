"""Perceptual hashes: of every picture that was looked at, and the same for copies of it."""

import io
import random

import numpy as np
import pdqhash
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from inference.decoder.decode import Decoder
from inference.decoder.media import Background, MediaLimits, PerceptualHash, Request
from inference.errors import Reason, ScoringError
from tests.inference.decoder.test_decode import CORPUS, SQUASH, drawing
from tests.media import ALL, drawn, file_of, moving, still

LIMITS = MediaLimits(max_pixels=40_000_000, max_frames=1000, max_seconds=600)
MATCH, NORMAL_QUALITY = 31, 50  # Meta's recommendations
JPEG = "image/jpeg"
PHOTOS = [
    "libavif/tests_data_io_kodim03_yuv420_8bpc.avif",
    "libavif/tests_data_io_kodim23_yuv420_8bpc.avif",
    "pillow/Tests_images_flower.jpg",
    "pillow/Tests_images_hopper_bad_exif.jpg",
]


def hashes(data: bytes, *, max_frames: int = 16, wanted: bool = True) -> list[PerceptualHash]:
    request = Request("", max_frames, frame_seconds=60, hashes=wanted)
    return list(Decoder(SQUASH, LIMITS, random.Random(1)).decode(data, request).hashes)


def hash_of(data: bytes) -> PerceptualHash:
    [found] = hashes(data)
    return found


def distance(one: PerceptualHash, other: bytes) -> int:
    return (int.from_bytes(one.pdq) ^ int.from_bytes(other)).bit_count()


def reference(image: Image.Image) -> bytes:
    """What Meta's code makes of all pixels of a picture."""
    bits, _ = pdqhash.compute(np.asarray(image.convert("RGB")))
    return int("".join(map(str, bits)), 2).to_bytes(32)


def photo(name: str) -> Image.Image:
    path = CORPUS / name
    if not path.exists():
        pytest.skip("the decoders' own test files are not there")
    return Image.open(path).convert("RGB")


def busy(width: int = 480, height: int = 360) -> Image.Image:
    """Drawings side by side: much to tell it from others."""
    picture = Image.new("RGB", (640, 480))
    for number in range(12):
        place = (160 * (number % 4), 160 * (number // 4))
        picture.paste(drawn(seed=number, size=160), place)
    return picture.resize((width, height))


def test_hashes_are_made_only_if_they_are_asked_for() -> None:
    assert hashes(still(drawing()), wanted=False) == []
    assert [one.frame_index for one in hashes(still(drawing()))] == [0]


@pytest.mark.parametrize("size", [(40, 30), (480, 360), (512, 512), (360, 480)])
def test_a_picture_of_a_usual_size_has_the_very_hash_of_the_reference(
    size: tuple[int, int],
) -> None:
    image = busy(*size)
    assert hash_of(still(image)) == PerceptualHash(0, Background.NONE, reference(image), 100)


@pytest.mark.parametrize("size", [(640, 480), (1600, 1200), (1021, 1533), (3000, 700)])
@pytest.mark.parametrize("kind", ["image/png", JPEG])
def test_a_large_picture_has_almost_the_hash_of_the_reference(
    size: tuple[int, int], kind: str
) -> None:
    """JPEGs are decoded smaller."""
    data = still(busy(*size), kind)
    found = hash_of(data)
    assert distance(found, reference(Image.open(io.BytesIO(data)))) <= 10
    assert found.quality >= NORMAL_QUALITY


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("width", [500, 1600])
def test_copies_of_a_photo_match_it_and_other_photos_do_not(name: str, width: int) -> None:
    original = photo(name)
    original = original.resize((width, width * original.height // original.width))
    found = hash_of(still(original, JPEG, quality=92))
    assert found.quality >= NORMAL_QUALITY
    half = original.resize((original.width // 2, original.height // 2))
    copies = [
        still(original, JPEG, quality=60),
        still(half, JPEG, quality=80),
        still(original.resize((400, 300)), "image/webp", quality=70),
        file_of(half, "video/mp4") if half.height % 2 == 0 else still(half, "image/gif"),
    ]
    for copy in copies:
        assert distance(found, hashes(copy)[0].pdq) <= MATCH
    others = [hash_of(still(photo(other), JPEG)).pdq for other in PHOTOS if other != name]
    assert all(distance(found, other) > 2 * MATCH for other in others)


@pytest.mark.parametrize("media_type", ALL)
def test_every_type_has_hashes_that_match(media_type: str) -> None:
    whole = reference(busy())
    found = hashes(file_of(busy(), media_type))
    assert found
    assert all(distance(one, whole) <= 16 for one in found)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_hash_is_that_of_the_upright_picture(orientation: int) -> None:
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes it, in Pillow's numbers
    image = busy()
    stored = image.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert hash_of(still(stored, exif=exif)).pdq == reference(image)


def test_the_whole_of_a_long_picture_has_one_hash() -> None:
    long = busy().resize((2000, 240))
    assert distance(hash_of(still(long)), reference(long)) <= 10


def test_what_is_transparent_has_a_hash_for_each_background() -> None:
    shape = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    shape.paste(busy(150, 100), (20, 20))
    ImageDraw.Draw(shape).ellipse((120, 150, 280, 290), fill=(60, 90, 60, 255))
    white, black = hashes(still(shape))
    assert (white.background, black.background) == (Background.WHITE, Background.BLACK)
    for found, colour in ((white, "white"), (black, "black")):
        canvas = Image.new("RGB", shape.size, colour)
        canvas.paste(shape, mask=shape.getchannel("A"))
        assert distance(found, reference(canvas)) <= 4
    assert distance(white, black.pdq) > MATCH


def test_what_is_transparent_only_in_one_region_has_a_hash_for_each_background() -> None:
    banner = busy(1200, 300).convert("RGBA")
    banner.paste((0, 0, 0, 0), (0, 100, 90, 200))
    found = [one.background for one in hashes(still(banner))]
    assert found == [Background.WHITE, Background.BLACK]


def test_transparency_that_makes_no_difference_costs_no_second_hash() -> None:
    assert hash_of(still(busy().convert("RGBA"))).background is Background.NONE
    nearly = busy().convert("RGBA")
    nearly.putpixel((0, 0), (200, 0, 0, 254))
    assert hash_of(still(nearly)).background is Background.NONE


def test_a_gamma_that_makes_another_picture_does_not_hide_the_plain_one() -> None:
    """Programs that pass it over show that one."""
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100_000 * 20).to_bytes(4))  # all but black is white
    dark = busy().point([value // 3 for value in range(256)] * 3)
    meant, plain = hashes(still(dark, pnginfo=info))
    assert plain.pdq == reference(dark)
    assert meant.pdq != plain.pdq


def test_an_animation_has_a_hash_for_each_frame_that_was_chosen() -> None:
    frames = [drawn(seed=number, size=96) for number in range(20)]
    data = moving(frames, "image/webp")
    assert [one.frame_index for one in hashes(data, max_frames=0)] == list(range(20))
    some = hashes(data, max_frames=5)
    assert len(some) == 5
    assert (some[0].frame_index, some[-1].frame_index) == (0, 19)
    for one in some:
        distances = [distance(one, reference(frame)) for frame in frames]
        assert distances.index(min(distances)) == one.frame_index


def test_the_closer_look_makes_none() -> None:
    decoder = Decoder(SQUASH, LIMITS, random.Random(1))
    views = decoder.decode(still(busy()), Request("", 16, 60)).views
    assert decoder.decode(still(busy()), Request("", 16, 60, tiles=2, closer=views)).hashes == ()


@pytest.mark.parametrize("size", [(200, 200), (1600, 1200)])
def test_a_picture_without_anything_in_it_has_quality_0(size: tuple[int, int]) -> None:
    assert hash_of(still(Image.new("RGB", size, (90, 120, 30)))).quality == 0


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (1, 400), (5000, 1)])
def test_a_tiny_picture_has_some_hash(size: tuple[int, int]) -> None:
    found = hash_of(still(Image.new("RGB", size, "red")))
    assert (len(found.pdq), found.quality) == (32, 0)


def test_a_hash_that_fails_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(image: object) -> None:
        raise RuntimeError("not this one")

    monkeypatch.setattr(pdqhash, "compute", compute)
    assert hash_of(still(busy())) == PerceptualHash(0, Background.NONE, bytes(32), 0)


def test_a_decoder_that_is_out_of_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(image: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pdqhash, "compute", compute)
    with pytest.raises(ScoringError) as caught:
        hashes(still(busy()))
    assert caught.value.reason is Reason.DECODER_OUT_OF_MEMORY
