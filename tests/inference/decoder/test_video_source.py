"""Videos: all frames in order, or the first, the last and others; upright; known codecs only."""

import random
import tempfile
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from inference.decoder.media import MediaLimits
from inference.decoder.video_frame import DecodedVideoFrame
from inference.decoder.video_source import VideoSource
from inference.errors import Reason, ScoringError

LIMITS = MediaLimits(max_pixels=40_000_000, max_frames=1000, max_seconds=600)
FORMATS = {"video/mp4": "libx264", "video/webm": "libvpx"}
LEVELS = 12  # of grey: how a frame is told from others
TENTHS = [number / 10 for number in range(LEVELS)]
both = pytest.mark.parametrize("media_type", FORMATS)


class Clock:
    """A time that goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.monotonic", lambda: made.now)
    return made


def film(
    times: Sequence[float],
    media_type: str = "video/mp4",
    picture: Image.Image | None = None,
    *,
    codec: str = "",
    matrix: Sequence[int] | None = None,
) -> bytes:
    """A video of frames that get lighter, or of one picture; every fourth is a key frame."""
    kind = media_type.removeprefix("video/")
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format=kind) as container:
        stream = container.add_stream(codec or FORMATS[media_type], rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.width, stream.height = picture.size if picture else (64, 48)
        if not codec:
            stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size = 4
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for number, seconds in enumerate(times):
            level = 20 * (number % LEVELS)
            image = picture or Image.new("RGB", (64, 48), (level,) * 3)
            frame = av.VideoFrame.from_ndarray(np.asarray(image))
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        container.close()
        return file.read()


def opened(data: bytes, media_type: str = "video/mp4", limits: MediaLimits = LIMITS) -> VideoSource:
    return VideoSource(data, media_type, limits, random.Random(1))


def number_of(frame: DecodedVideoFrame) -> int:
    """Which frame of the film it is."""
    return round(float(np.asarray(frame.picture().image).mean()) / 20)


def refusal(data: bytes) -> Reason:
    with pytest.raises(ScoringError) as caught:
        opened(data)
    return caught.value.reason


@both
def test_all_frames_come_in_order(media_type: str) -> None:
    source = opened(film(TENTHS, media_type), media_type)
    frames = list(source.frames(until=float("inf")))
    assert [frame.index for frame in frames] == [number_of(f) for f in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx(TENTHS, abs=0.01)
    assert (source.partial, source.total_frames) == ("", 12)
    assert source.duration == pytest.approx(1.2, abs=0.11)


@both
def test_when_time_is_short_the_first_and_the_last_are_seen(media_type: str, clock: Clock) -> None:
    source = opened(film([number / 10 for number in range(60)], media_type), media_type)
    times = []
    for frame in source.frames(until=10):
        times.append(frame.time)
        clock.now = max(clock.now, 11 if frame.time > 5.85 else 7)
    assert times[0] == 0
    assert max(times) == pytest.approx(5.9, abs=0.01)
    assert len(times) == len(set(times)) < 10
    assert not source.partial


@both
def test_the_rest_of_the_time_goes_to_places_in_between(media_type: str, clock: Clock) -> None:
    source = opened(film([number / 10 for number in range(60)], media_type), media_type)
    times = set()
    for frame in source.frames(until=10):
        clock.now = max(7, clock.now + 0.2)
        times.add(frame.time)
    assert any(0.5 < time < 5.4 for time in times)


@both
def test_when_there_is_no_time_what_is_missing_is_said(media_type: str, clock: Clock) -> None:
    clock.now = 5
    source = opened(film(TENTHS, media_type), media_type)
    times = [frame.time for frame in source.frames(until=4)]
    assert times[0] == 0
    assert max(times) == pytest.approx(1.1, abs=0.01) or source.partial


SEVERAL_TIMES = {
    "even": TENTHS,
    "uneven": [0, 1, 1.04, 1.08, 2, 3, 3.04, 3.5, 7, 7.04, 8, 9],
    "late": [5 + seconds for seconds in TENTHS],
}


@both
@pytest.mark.parametrize("times", SEVERAL_TIMES.values(), ids=SEVERAL_TIMES)
def test_the_frames_that_are_asked_for_are_found_again(media_type: str, times: list[float]) -> None:
    data = film(times, media_type)
    places = [(frame.index, frame.time) for frame in opened(data, media_type).frames(float("inf"))]
    assert len(places) == 12
    for wanted in ([places[2]], [places[6]], [places[11]], places[1::3][::-1], places):
        found = list(opened(data, media_type).frames_at(wanted))
        assert [(frame.index, frame.time) for frame in found] == sorted(wanted)
        assert [number_of(frame) for frame in found] == sorted(index for index, _ in wanted)


# p' = a p + c q, q' = b p + d q, with q downwards (ISO/IEC 14496-12, 6.2.2); by a, b, c, d.
TURNS = {
    "as it is": ((1, 0, 0, 1), (96, 64), ("left", "top")),
    "clockwise": ((0, 1, -1, 0), (64, 96), ("right", "top")),
    "upside down": ((-1, 0, 0, -1), (96, 64), ("right", "bottom")),
    "counter-clockwise": ((0, -1, 1, 0), (64, 96), ("left", "bottom")),
    "mirrored": ((-1, 0, 0, 1), (96, 64), ("right", "top")),
    "mirrored upside down": ((1, 0, 0, -1), (96, 64), ("left", "bottom")),
}


@pytest.mark.parametrize(("turn", "size", "corner"), TURNS.values(), ids=TURNS)
def test_a_video_is_seen_upright(
    turn: tuple[int, int, int, int], size: tuple[int, int], corner: tuple[str, str]
) -> None:
    picture = Image.new("RGB", (96, 64))
    ImageDraw.Draw(picture).rectangle((0, 0, 15, 15), "white")
    a, b, c, d = (65536 * number for number in turn)
    source = opened(film(TENTHS, picture=picture, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30)))
    frame = next(source.frames(float("inf")))
    shown = frame.picture()
    assert (shown.width, shown.height) == shown.image.size == (source.width, source.height) == size
    rows, columns = np.nonzero(np.asarray(shown.image.convert("L")) > 128)
    assert ("left" if columns.mean() < size[0] / 2 else "right") == corner[0]
    assert ("top" if rows.mean() < size[1] / 2 else "bottom") == corner[1]


def test_codecs_that_browsers_do_not_play_are_refused() -> None:
    assert refusal(film(TENTHS, codec="mpeg2video")) is Reason.UNSUPPORTED_TYPE
    unheard_of = film(TENTHS).replace(b"avc1", b"zzzz")
    assert refusal(unheard_of) is Reason.UNSUPPORTED_TYPE


def test_a_file_with_nothing_but_sound_is_refused() -> None:
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        container.close()
        assert refusal(file.read()) is Reason.UNDECODABLE


def test_a_video_that_does_not_tell_its_length_is_measured() -> None:
    short = MediaLimits(max_pixels=40_000_000, max_frames=1000, max_seconds=0.5)
    data = film(TENTHS, "video/webm")
    at = data.index(b"\x44\x89\x88")  # the element that tells it becomes one to be passed over
    silent = data[:at] + b"\xec\x40\x08" + data[at + 3 :]
    with pytest.raises(ScoringError) as caught:
        list(opened(silent, "video/webm", short).frames(float("inf")))
    assert caught.value.reason is Reason.TOO_LONG
