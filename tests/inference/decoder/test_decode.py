"""Decoding: the view that open_clip itself would make, and an error for everything else."""

import io
import zlib
from pathlib import Path

import numpy as np
import open_clip
import pytest
from PIL import Image

from inference.decoding import DecodedMedia, Preprocessing, decode
from inference.demo.drawing import random_scene, render
from inference.errors import Reason, ScoringError

SQUASH = Preprocessing(64, 64, "squash", "bicubic", 0)
CORPUS = Path(__file__).parents[3] / "shared" / "corpus"


def drawing(width: int = 200, height: int = 120) -> Image.Image:
    return render(random_scene(np.random.default_rng(3), aspect=width / height), width, height)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def decoded(data: bytes, declared: str = "", spec: Preprocessing = SQUASH) -> DecodedMedia:
    return decode(data, declared, spec, 40_000_000)


def pixels(data: bytes, spec: Preprocessing = SQUASH) -> np.ndarray:
    view = decoded(data, spec=spec).views[0]
    return np.frombuffer(view.pixels, np.uint8).reshape(spec.height, spec.width, 3)


def refusal(data: bytes, declared: str = "", max_pixels: int = 40_000_000) -> Reason:
    with pytest.raises(ScoringError) as caught:
        decode(data, declared, SQUASH, max_pixels)
    assert "\n" not in caught.value.message
    return caught.value.reason


MODES = ("shortest", "longest", "squash")
TARGETS = ((64, 64), (224, 224), (60, 90))
SPECS = [
    (mode, interpolation, target)
    for mode in MODES
    for interpolation in ("bicubic", "bilinear")
    for target in TARGETS
    # open_clip ignores the interpolation for the shorter side of a target that is no square.
    if (mode, interpolation, target) != ("shortest", "bilinear", (60, 90))
]


@pytest.mark.parametrize(("mode", "interpolation", "target"), SPECS)
@pytest.mark.parametrize("size", [(200, 120), (120, 200), (50, 50), (37, 333), (1600, 1200)])
def test_views_are_those_of_open_clip(
    mode: str, interpolation: str, target: tuple[int, int], size: tuple[int, int]
) -> None:
    """Byte by byte; only long strips, which are cut before resizing, may be rounded otherwise."""
    image = drawing(*size)
    wanted = open_clip.image_transform(
        (target[1], target[0]),
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=interpolation,
        resize_mode=mode,
    )(image)
    spec = Preprocessing(*target, mode, interpolation, 0)  # type: ignore[arg-type]
    ours = pixels(encoded(image), spec).astype(int)
    theirs = np.round(wanted.permute(1, 2, 0).numpy() * 255).astype(int)
    difference = np.abs(ours - theirs)
    if max(size) <= 4 * min(size):
        assert difference.max() == 0
    assert difference.mean() < 0.05


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_scanned_types(kind: str, media_type: str) -> None:
    media = decoded(encoded(drawing(), kind), media_type)
    assert (media.media_type, media.width, media.height) == (media_type, 200, 120)
    assert decoded(encoded(drawing(), kind), f"{media_type.upper()}; q=1") == media


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16", "I"])
def test_every_mode_shows_the_same_picture(mode: str) -> None:
    image = drawing().convert("L") if mode in ("I;16", "I") else drawing().convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    reference = pixels(encoded(drawing().convert("L"))).astype(int)
    if mode in ("P", "CMYK", "RGBA"):
        reference = pixels(encoded(drawing())).astype(int)
    tolerance = {"P": 40, "1": 255, "CMYK": 20}.get(mode, 2)
    assert np.abs(pixels(encoded(image, kind)).astype(int) - reference).max() <= tolerance


def test_what_is_transparent_shows_white() -> None:
    image = Image.new("P", (10, 10), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    assert pixels(encoded(image, transparency=0)).min() == 255
    assert pixels(encoded(Image.new("RGBA", (10, 10), (200, 0, 0, 0)))).min() == 255
    assert pixels(encoded(image))[0, 0].tolist() == [200, 0, 0]


def test_the_orientation_that_a_photo_asks_for_is_honoured() -> None:
    image = drawing(200, 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    media = decoded(encoded(image, "PNG", exif=exif))
    assert (media.width, media.height) == (120, 200)
    upright = encoded(image.transpose(Image.Transpose.ROTATE_270))
    assert media.views[0].pixels == decoded(upright).views[0].pixels


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def test_no_transparent_colour_of_16_bits_hides_another_one() -> None:
    """Pillow takes the low byte of the colour and the high byte of the samples for the same."""
    header = (1).to_bytes(4) + (1).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    row = bytes([0, 0xDC, 0x00, 0x14, 0x00, 0x14, 0x00])
    hiding = bytes([0x00, 0xDC, 0x00, 0x14, 0x00, 0x14])
    chunks = ((b"IHDR", header), (b"tRNS", hiding), (b"IDAT", zlib.compress(row)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    assert pixels(data)[0, 0].tolist() == [0xDC, 0x14, 0x14]


@pytest.mark.parametrize("exif", [b"junk", b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_metadata_does_not_make_a_picture_unreadable(kind: str, exif: bytes) -> None:
    assert decoded(encoded(drawing(), kind, exif=exif)).width == 200


def test_the_orientation_is_honoured_beside_a_tag_that_is_broken() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8298] = "©"  # copyright, which Pillow can't write back as it read it
    exif[0x0213] = 1
    assert decoded(encoded(drawing(200, 120), "JPEG", exif=exif)).width == 120


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_dots_and_strips_make_a_view(size: tuple[int, int], mode: str) -> None:
    spec = Preprocessing(224, 224, mode, "bicubic", 0)  # type: ignore[arg-type]
    media = decoded(encoded(Image.new("RGB", size, "red")), spec=spec)
    view = media.views[0]
    assert len(view.pixels) == 224 * 224 * 3
    assert view.region.width >= 1
    assert view.region.left + view.region.width <= size[0]
    assert view.region.top + view.region.height <= size[1]


def test_the_region_of_a_centre_crop_is_the_square_in_the_middle() -> None:
    spec = Preprocessing(224, 224, "shortest", "bicubic", 0)
    for width in range(20, 140, 7):
        for height in range(20, 140, 11):
            data = encoded(Image.new("RGB", (width, height)))
            region = decoded(data, spec=spec).views[0].region
            side = min(width, height)
            assert abs(region.width - side) <= 1
            assert abs(region.height - side) <= 1
            assert side in (region.width, region.height)
            assert region.left + region.width <= width
            assert region.top + region.height <= height


def test_refusals() -> None:
    png, jpeg = encoded(drawing()), encoded(drawing(), "JPEG")
    assert refusal(b"") is Reason.EMPTY_IMAGE
    assert refusal(b"just some text", "image/png") is Reason.UNSUPPORTED_TYPE
    assert refusal(png, "image/jpeg") is Reason.TYPE_MISMATCH
    assert refusal(jpeg[: len(jpeg) // 2]) is Reason.TRUNCATED
    assert refusal(png[: len(png) // 2]) is Reason.TRUNCATED
    assert refusal(b"\x89PNG\r\n\x1a\n" + b"x" * 100) in (Reason.UNDECODABLE, Reason.TRUNCATED)
    assert refusal(png.replace(b"IHDR", b"IHDX")) is Reason.UNDECODABLE
    assert refusal(png, max_pixels=200 * 120 - 1) is Reason.TOO_MANY_PIXELS


def test_a_bomb_is_refused_from_its_header() -> None:
    bomb = bytearray(encoded(Image.new("1", (20_000, 20_000))))
    assert refusal(bytes(bomb)) is Reason.TOO_MANY_PIXELS


def test_strangers_files_raise_nothing_but_scoring_errors() -> None:
    files = sorted(path for path in CORPUS.rglob("*") if path.is_file())
    if not files:
        pytest.skip("the corpus is not here")
    for path in files:
        try:
            media = decoded(path.read_bytes())
        except ScoringError:
            continue
        assert len(media.views[0].pixels) == 64 * 64 * 3
