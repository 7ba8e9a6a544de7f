"""Decoding: views of every type that show all of the picture, and an error for everything else."""

import io
import random
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import open_clip
import pytest
from av.video.stream import VideoStream
from PIL import Image, ImageCms, ImageDraw

from inference.decoder.decode import Decoder
from inference.decoder.media import (
    Background,
    DecodedMedia,
    MediaLimits,
    Preprocessing,
    Region,
    Request,
)
from inference.demo.drawing import random_scene, render
from inference.errors import Reason, ScoringError
from tests.media import ALL, MOVING, drawn, file_of, moving, still

GREY = Image.new("RGB", (64, 64), (120, 120, 120))
SQUASH = Preprocessing(64, 64, "squash", "bicubic", 0)
LIMITS = MediaLimits(max_pixels=40_000_000, max_frames=1000, max_seconds=600)
CORPUS = Path(__file__).parents[4] / "shared" / "corpus"

Pixels = npt.NDArray[np.uint8]


def drawing(width: int = 200, height: int = 140) -> Image.Image:
    return render(random_scene(np.random.default_rng(3), aspect=width / height), width, height)


def decoded(
    data: bytes,
    declared: str = "",
    spec: Preprocessing = SQUASH,
    limits: MediaLimits = LIMITS,
    max_frames: int = 16,
    tiles: int = 1,
) -> DecodedMedia:
    request = Request(declared, max_frames, frame_seconds=60, tiles=tiles)
    return Decoder(spec, limits, random.Random(1)).decode(data, request)


def pixels(data: bytes, spec: Preprocessing = SQUASH, view: int = 0) -> Pixels:
    view_bytes = decoded(data, spec=spec).pixels[view]
    return np.frombuffer(view_bytes, np.uint8).reshape(spec.height, spec.width, 3)


def refusal(data: bytes, declared: str = "", limits: MediaLimits = LIMITS) -> Reason:
    with pytest.raises(ScoringError) as caught:
        decoded(data, declared, limits=limits)
    assert "\n" not in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [64, 224])
def test_a_square_picture_is_seen_as_by_open_clip_itself(
    mode: str, interpolation: str, side: int
) -> None:
    """Byte by byte."""
    image = drawing(900, 900)
    wanted = open_clip.image_transform(
        (side, side),
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=interpolation,
        resize_mode=mode,
    )(image)
    spec = Preprocessing(side, side, mode, interpolation, 0)  # type: ignore[arg-type]
    theirs = np.round(wanted.permute(1, 2, 0).numpy() * 255).astype(int)
    assert np.array_equal(pixels(still(image), spec).astype(int), theirs)


def test_a_jpeg_that_is_decoded_smaller_looks_the_same() -> None:
    image = drawing(1600, 1200)
    data = still(image, "image/jpeg", quality=95)
    small = pixels(data).astype(int)
    whole = pixels(still(Image.open(io.BytesIO(data)))).astype(int)
    assert np.abs(small - whole).mean() < 1
    assert decoded(data).facts.width == 1600


@pytest.mark.parametrize("media_type", ALL)
def test_every_type_is_scanned(media_type: str) -> None:
    data = file_of(drawing(), media_type)
    media = decoded(data, media_type)
    facts = media.facts
    assert (facts.media_type, facts.width, facts.height) == (media_type, 200, 140)
    assert not facts.partial
    assert media.views[0].region == Region(0, 0, 200, 140)
    reference = pixels(still(drawing())).astype(int)
    assert np.abs(pixels(data).astype(int) - reference).mean() < 12
    assert decoded(data, f"{media_type.upper()}; q=1").facts == facts


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16", "I"])
def test_every_mode_shows_the_same_picture(mode: str) -> None:
    image = drawing().convert("L") if mode in ("I;16", "I") else drawing().convert(mode)
    kind = "image/jpeg" if mode == "CMYK" else "image/png"
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    reference = pixels(still(drawing().convert("L"))).astype(int)
    if mode in ("P", "CMYK", "RGBA"):
        reference = pixels(still(drawing())).astype(int)
    tolerance = {"P": 40, "1": 255, "CMYK": 20}.get(mode, 2)
    assert np.abs(pixels(still(image, kind)).astype(int) - reference).max() <= tolerance


def test_what_is_transparent_is_seen_on_white_and_on_black() -> None:
    shape = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(shape).ellipse((16, 16, 48, 48), fill=(0, 0, 0, 255))
    media = decoded(still(shape))
    assert [view.background for view in media.views] == [Background.WHITE, Background.BLACK]
    white, black = (np.frombuffer(view, np.uint8).reshape(64, 64, 3) for view in media.pixels)
    assert white[0, 0].tolist() == [255, 255, 255]
    assert white[32, 32].tolist() == [0, 0, 0]
    assert black.max() == 0
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([200, 0, 0, 0, 0, 200])
    assert len(decoded(still(palette, transparency=0)).views) == 2


def test_transparency_that_makes_no_difference_costs_nothing() -> None:
    opaque = drawing().convert("RGBA")
    assert [view.background for view in decoded(still(opaque)).views] == [Background.NONE]
    opaque.putpixel((0, 0), (200, 0, 0, 254))
    assert len(decoded(still(opaque)).views) == 1


def test_the_orientation_that_a_photo_asks_for_is_honoured() -> None:
    image = drawing(200, 140)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    for kind in ("image/png", "image/jpeg", "image/webp", "image/avif"):
        media = decoded(still(image, kind, exif=exif))
        assert (media.facts.width, media.facts.height) == (140, 200)
        upright = pixels(still(image.transpose(Image.Transpose.ROTATE_270), kind)).astype(int)
        turned = np.frombuffer(media.pixels[0], np.uint8).reshape(64, 64, 3)
        assert np.abs(upright - turned).mean() < 5  # a wrong turn: 29


def test_an_icc_profile_is_honoured() -> None:
    """Of a CMYK picture the profile says what its inks look like."""
    grey = Image.new("L", (64, 64), 100)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    linear = profile.replace(b"curv", b"curv")  # the same profile changes nothing
    assert pixels(still(grey.convert("RGB"), icc_profile=linear))[0, 0].tolist() == [100] * 3
    swapped = profile.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    red, seen = Image.new("RGB", (64, 64), (200, 30, 30)), None
    seen = pixels(still(red, icc_profile=swapped))[0, 0].tolist()
    assert seen[2] > 150 > 100 > seen[0]


def test_an_icc_profile_that_makes_no_sense_is_passed_over() -> None:
    red = Image.new("RGB", (64, 64), "red")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for broken in (lab, b"junk" * 50):
        assert pixels(still(red, icc_profile=broken))[0, 0].tolist() == [255, 0, 0]


def test_the_gamma_that_a_png_names_is_honoured() -> None:
    """Some pictures show one thing to programs that know of gamma and another to the others."""
    grey = still(Image.new("L", (8, 8), 100))
    at = grey.index(b"IDAT") - 4
    bright = grey[:at] + png_chunk(b"gAMA", (100_000).to_bytes(4)) + grey[at:]
    assert pixels(grey)[0, 0, 0] == 100
    assert pixels(bright)[0, 0, 0] == round(255 * (100 / 255) ** (1 / 2.2))


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
@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/webp"])
def test_broken_metadata_does_not_make_a_picture_unreadable(kind: str, exif: bytes) -> None:
    assert decoded(still(drawing(), kind, exif=exif)).facts.width == 200


def test_the_orientation_is_honoured_beside_a_tag_that_is_broken() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8298] = "©"  # copyright, which Pillow can't write back as it read it
    exif[0x0213] = 1
    assert decoded(still(drawing(200, 140), "image/jpeg", exif=exif)).facts.width == 140


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_dots_and_strips_make_views(size: tuple[int, int], mode: str) -> None:
    spec = Preprocessing(224, 224, mode, "bicubic", 0)  # type: ignore[arg-type]
    media = decoded(still(Image.new("RGB", size, "red")), spec=spec)
    assert all(len(view) == spec.view_bytes for view in media.pixels)


def test_what_is_at_the_edge_of_a_banner_is_seen() -> None:
    banner = Image.new("RGB", (800, 200), "white")
    ImageDraw.Draw(banner).rectangle((770, 80, 799, 120), fill="black")
    for spec in (SQUASH, Preprocessing(224, 224, "shortest", "bicubic", 0)):
        media = decoded(still(banner), spec=spec)
        assert {view.region.width for view in media.views} == {200}
        assert sum(min(view) < 50 for view in media.pixels) == 1


def test_tiles_show_more_of_what_is_small() -> None:
    picture = Image.new("RGB", (640, 640), "white")
    ImageDraw.Draw(picture).rectangle((100, 100, 105, 105), fill="black")
    media = decoded(still(picture, "image/jpeg"), tiles=3)
    assert len(media.views) == 1 + 4 + 9
    whole, *tiles = media.pixels
    assert min(min(tile) for tile in tiles) < min(whole) - 50
    request = Request("", 16, 60, tiles=2, closer=media.views[:1])
    closer = Decoder(SQUASH, LIMITS, random.Random(1)).decode(still(picture, "image/jpeg"), request)
    assert [view.region for view in closer.views] == [view.region for view in media.views[1:5]]


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_a_picture_that_hides_in_every_nth_pixel_is_not_what_is_seen(kind: str) -> None:
    """The image-scaling attack: what subsampling would pick out is not what people see."""
    factor, side = 16, 64
    attack = np.full((side * factor, side * factor, 3), 255, np.uint8)
    attack[factor // 2 :: factor, factor // 2 :: factor] = np.asarray(
        drawn(("red", "triangle"), size=side)
    )
    image = Image.fromarray(attack)
    subsampled = np.asarray(image.resize((side, side), Image.Resampling.NEAREST)).astype(int)
    assert (255 - subsampled).mean() > 50, "the attack works on those who subsample"
    options = {} if kind == "image/png" else {"quality": 100, "subsampling": 0}
    for spec in (SQUASH, Preprocessing(side, side, "shortest", "bilinear", 0)):
        seen = pixels(still(image, kind, **options), spec).astype(int)
        assert (255 - seen).max() < 16


def test_a_truncated_picture_is_seen_as_far_as_it_goes() -> None:
    image = drawing(400, 400)
    for kind in ("image/jpeg", "image/png"):
        data = still(image, kind)
        media = decoded(data[: len(data) * 6 // 10])
        assert media.facts.partial == "the file ends too early"
        assert (media.facts.width, media.facts.height) == (400, 400)
        region = media.views[0].region
        assert (region.left, region.top) == (0, 0)
        assert 0 < region.height < 400
    assert not decoded(still(image)).facts.partial


@pytest.mark.parametrize("media_type", MOVING)
def test_an_animation_with_a_broken_tail_is_seen_as_far_as_it_goes(media_type: str) -> None:
    frames = [drawn(seed=number, size=120) for number in range(12)]
    data = moving(frames, media_type, header_first=True)
    media = decoded(data[: len(data) * 6 // 10])
    assert media.facts.partial
    assert media.facts.media_type == media_type
    assert 1 < media.facts.frames < 12
    assert len(media.views) >= media.facts.frames - 1
    assert not decoded(data).facts.partial


@pytest.mark.parametrize("media_type", ["image/apng", "image/webp"])
@pytest.mark.parametrize("max_frames", [0, 16])
def test_no_picture_hides_behind_its_own_mosaic(media_type: str, max_frames: int) -> None:
    sharp = drawn(("red", "triangle"), size=256)
    mosaic = sharp.resize((32, 32), Image.Resampling.BOX).resize((256, 256), 0)
    spec = Preprocessing(224, 224, "squash", "bicubic", 0)
    data = moving([mosaic, sharp, mosaic], media_type)
    media = decoded(data, spec=spec, max_frames=max_frames)
    assert 1 in {view.frame_index for view in media.views}


def test_what_a_file_says_of_its_colours_hides_nothing() -> None:
    """Browsers pass over a gamma or a profile that makes no sense."""
    picture = still(drawing())
    at = picture.index(b"IDAT") - 4
    black = picture[:at] + png_chunk(b"gAMA", (1).to_bytes(4)) + picture[at:]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (black, still(drawing(), icc_profile=without_colours(profile))):
        media = decoded(data)
        assert decoded(picture).pixels[0] in media.pixels
        assert len(media.views) == 2


def without_colours(profile: bytes) -> bytes:
    """A profile whose primaries are all black."""
    data = bytearray(profile)
    for name in (b"rXYZ", b"gXYZ", b"bXYZ"):
        entry = data.index(name)
        offset = int.from_bytes(data[entry + 4 : entry + 8])
        data[offset + 8 : offset + 20] = bytes(12)
    return bytes(data)


def test_an_orientation_that_browsers_pass_over_is_passed_over() -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf'
        b'-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    assert decoded(still(drawing(200, 140), "image/jpeg", xmp=xmp)).facts.width == 200


@pytest.mark.parametrize("count", [1, 2, 9])
def test_an_apng_that_miscounts_its_frames_is_partial(count: int) -> None:
    data = moving([drawn(seed=number, size=64) for number in range(3)], "image/apng")
    at = data.index(b"acTL") - 4
    control = png_chunk(b"acTL", count.to_bytes(4) + bytes(4))
    assert decoded(data[:at] + control + data[at + 20 :]).facts.partial
    assert decoded(data[:at] + data[at : at + 20] * 2 + data[at + 20 :]).facts.partial


def test_both_pictures_of_an_avif_sequence_are_seen() -> None:
    """The still one is what a program shows that knows no sequences."""
    frames = [drawn(("blue", "circle"), seed=number, size=64) for number in range(3)]
    data = bytearray(moving(frames, "image/avif"))
    other = still(drawn(("red", "triangle"), size=64), "image/avif")
    # The place of the still picture: one extent, of which offset and length are 32 bits.
    place = data.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 2
    theirs = other.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 2
    start, length = (int.from_bytes(other[theirs + n : theirs + n + 4]) for n in (0, 4))
    data[place : place + 8] = (len(data) + 8).to_bytes(4) + length.to_bytes(4)
    picture = other[start : start + length]
    data += (len(picture) + 8).to_bytes(4) + b"mdat" + picture
    reference = np.frombuffer(decoded(other).pixels[0], np.uint8).astype(int)
    media = decoded(bytes(data))
    differences = [np.abs(np.frombuffer(p, np.uint8) - reference).mean() for p in media.pixels]
    assert min(differences) < 1


@pytest.mark.parametrize("media_type", ["video/mp4", "video/webm"])
def test_what_follows_the_last_box_does_not_matter(media_type: str) -> None:
    data = file_of(drawing(), media_type)
    assert not decoded(data).facts.partial
    if media_type == "video/mp4":
        assert not decoded(data + b"junk" * 10).facts.partial


def test_refusals() -> None:
    png, jpeg = still(drawing()), still(drawing(), "image/jpeg")
    assert refusal(b"") is Reason.EMPTY_IMAGE
    assert refusal(b"just some text", "image/png") is Reason.UNSUPPORTED_TYPE
    assert refusal(png, "image/jpeg") is Reason.TYPE_MISMATCH
    assert refusal(jpeg[:300]) is Reason.TRUNCATED
    assert refusal(png[:60]) is Reason.TRUNCATED
    assert refusal(b"\x89PNG\r\n\x1a\n" + b"x" * 100) in (Reason.UNDECODABLE, Reason.TRUNCATED)
    assert refusal(png.replace(b"IHDR", b"IHDX")) is Reason.UNDECODABLE
    for kind in ("image/avif", "image/webp", "video/mp4"):  # this MP4 has its index at its end
        data = file_of(drawing(), kind)
        assert refusal(data[: len(data) // 2], kind) is Reason.TRUNCATED


@pytest.mark.parametrize("media_type", ALL)
def test_what_has_too_many_pixels_is_refused(media_type: str) -> None:
    limits = MediaLimits(max_pixels=200 * 140 - 1, max_frames=1000, max_seconds=600)
    assert refusal(file_of(drawing(), media_type), limits=limits) is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("media_type", MOVING)
def test_what_has_too_many_frames_or_lasts_too_long_is_refused(media_type: str) -> None:
    data = moving([drawn(seed=number, size=64) for number in range(5)], media_type)
    few = MediaLimits(max_pixels=40_000_000, max_frames=4, max_seconds=600)
    assert refusal(data, limits=few) is Reason.TOO_MANY_FRAMES
    short = MediaLimits(max_pixels=40_000_000, max_frames=100, max_seconds=0.3)
    assert refusal(data, limits=short) is Reason.TOO_LONG


@pytest.mark.parametrize("kind", ["image/png", "image/gif", "image/webp", "image/jxl"])
def test_a_bomb_is_refused_from_its_header(kind: str) -> None:
    small = MediaLimits(max_pixels=1_000_000, max_frames=1, max_seconds=1)
    assert refusal(still(Image.new("L", (4000, 4000)), kind), limits=small) is (
        Reason.TOO_MANY_PIXELS
    )


def test_strangers_files_raise_nothing_but_scoring_errors() -> None:
    files = sorted(path for path in CORPUS.rglob("*") if path.is_file())
    if not files:
        pytest.skip("the corpus is not here")
    for path in files:
        try:
            media = decoded(path.read_bytes())
        except ScoringError:
            continue
        assert media.views
        assert {len(view) for view in media.pixels} == {64 * 64 * 3}


def test_what_an_edit_list_leaves_out_is_seen() -> None:
    """Players don't agree on edit lists."""
    data = bytearray(moving([drawn(seed=number, size=64) for number in range(20)], "video/mp4"))
    at = data.index(b"elst") + 12
    data[at : at + 4] = (500).to_bytes(4)  # milliseconds of two seconds
    facts = decoded(bytes(data)).facts
    assert (facts.frames, facts.total_frames, facts.partial) == (20, 20, "")


def test_frames_that_are_shown_at_one_time_are_all_seen() -> None:
    frames = [GREY.copy()] * 10 + [drawn(("red", "triangle"), size=64)] * 10
    data = bytearray(moving(frames, "video/mp4"))
    at = data.index(b"stts") + 12
    data[at + 4 : at + 8] = bytes(4)  # the length of every frame
    media = decoded(bytes(data))
    assert media.facts.frames == 20
    assert len(media.views) >= 2


def test_of_several_video_streams_one_is_not_enough() -> None:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        for stream in streams:
            assert isinstance(stream, VideoStream)
            stream.width = stream.height = 64
        for stream in streams:
            assert isinstance(stream, VideoStream)
            picture = av.VideoFrame(64, 64, "yuv420p")
            container.mux([*stream.encode(picture), *stream.encode(None)])
    assert decoded(data.getvalue()).facts.partial


def test_a_video_with_transparency_is_partial() -> None:
    data = io.BytesIO()
    with av.open(data, "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuva420p"
        picture = av.VideoFrame(64, 64, "yuva420p")
        container.mux([*stream.encode(picture), *stream.encode(None)])
    assert decoded(data.getvalue()).facts.partial == "its transparency is not decoded"


def test_pixels_that_are_no_squares_are_shown_as_players_show_them() -> None:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = 320, 32
        stream.codec_context.sample_aspect_ratio = Fraction(1, 10)
        picture = av.VideoFrame(320, 32, "yuv420p")
        container.mux([*stream.encode(picture), *stream.encode(None)])
    media = decoded(data.getvalue())
    assert (media.facts.width, media.facts.height) == (32, 32)
    assert [view.region for view in media.views] == [Region(0, 0, 32, 32)]


def test_a_moving_strip_does_not_become_hundreds_of_views() -> None:
    frames = [drawing(600, 50).rotate(number, fillcolor="red") for number in range(20)]
    media = decoded(moving(frames, "image/webp"))
    assert 0 < len(media.views) <= 128
    assert (media.views[0].frame_index, media.views[-1].frame_index) == (0, 19)
