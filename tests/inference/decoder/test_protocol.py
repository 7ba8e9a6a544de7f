"""What passes between the service and a decoder, which may have been taken over by a file."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.decoder.media import (
    Background,
    DecodedMedia,
    Facts,
    MediaLimits,
    PerceptualHash,
    Preprocessing,
    Region,
    Request,
    View,
)
from inference.decoder.protocol import (
    MAX_CLOSER,
    MAX_PACKET_BYTES,
    BrokenReplyError,
    StoredViews,
    WorkerSettings,
    pack_error,
    pack_media,
    pack_request,
    unpack_reply,
    unpack_request,
)
from inference.errors import Reason, ScoringError
from inference.shared_file import SMALL_BYTES

counts = st.integers(0, 2**32 - 1)
times = st.floats(0, 1e9)
regions = st.builds(Region, counts, counts, counts, counts)
views = st.builds(View, counts, times, regions, st.sampled_from(Background))
hashes = st.builds(
    PerceptualHash,
    counts,
    st.sampled_from(Background),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 100),
)
text = st.text(st.characters(categories=["L", "N", "P"]), max_size=300)
facts = st.builds(Facts, text, counts, counts, counts, counts, times, text)
FACTS: list[object] = ["image/png", 200, 140, 1, 1, 0.5, "why"]
WRONG: list[object] = [None, [], {}, math.nan, math.inf, -1, -0.5, 10**400, -(10**400), "", "7"]
OF_THE_SERVICE = {
    *(Reason.QUEUE_FULL, Reason.DRAINING, Reason.INVALID_HEADER),
    *(Reason.ENCODER_FAILED, Reason.DECODER_KILLED),
}


def read_from(stored: bytes, count: int, view_bytes: int) -> StoredViews:
    return StoredViews(lambda size, offset: stored[offset : offset + size], count, view_bytes)


def is_broken(reply: object) -> bool:
    with pytest.raises(BrokenReplyError):
        unpack_reply(json.dumps(reply).encode())
    return True


@given(
    text,
    counts,
    times,
    st.integers(1, 3),
    st.lists(views, max_size=5),
    st.none() | st.binary(max_size=40),
    st.booleans(),
)
def test_a_request_arrives_as_it_was_sent(
    declared: str,
    max_frames: int,
    seconds: float,
    tiles: int,
    closer: list[View],
    content: bytes | None,
    hashed: bool,
) -> None:
    request = Request(declared, max_frames, seconds, 2 * seconds, tiles, tuple(closer), hashed)
    # A tile finds out for itself what shows through it.
    plain = tuple(dataclasses.replace(view, background=Background.NONE) for view in closer)
    sent = dataclasses.replace(request, closer=plain)
    assert unpack_request(b"".join(pack_request(request, content))) == (sent, content)


@given(st.text(min_size=400), times)
def test_the_largest_request_fits_into_a_packet(declared: str, seconds: float) -> None:
    most = 2**32 - 1
    view = View(most, 2.2250738585072014e-308, Region(most, most, most, most), Background.BLACK)
    declared += "\U0001f600" * 300
    request = Request(declared, most, seconds, seconds, 3, (view,) * MAX_CLOSER, hashes=True)
    packet = b"".join(pack_request(request, bytes(SMALL_BYTES)))
    assert len(packet) <= MAX_PACKET_BYTES


@given(
    facts,
    st.lists(st.tuples(views, st.binary(min_size=12, max_size=12), st.none() | hashes), max_size=5),
)
def test_media_arrive_as_they_were_sent(
    what: Facts, made: list[tuple[View, bytes, PerceptualHash | None]]
) -> None:
    stored = bytearray()
    sent = tuple(found for _, _, found in made if found)
    places = tuple(view for view, _, _ in made)
    media = DecodedMedia(what, places, [pixels for _, pixels, _ in made], sent)
    reply = unpack_reply(pack_media(media, lambda *parts: stored.extend(b"".join(parts))))
    assert (reply.views, reply.hashes, reply.error) == (len(made), len(sent), None)
    assert reply.facts is not None
    assert dataclasses.astuple(reply.facts) == pytest.approx(dataclasses.astuple(what))
    arrived = read_from(bytes(stored), reply.views, 12)
    assert list(arrived) == list(media.pixels)
    assert [arrived.view(index) for index in range(len(made))] == list(media.views)
    assert arrived.hashes(reply.hashes) == sent


@pytest.mark.parametrize("reason", [Reason.UNDECODABLE, Reason.TOO_LONG, Reason.DECODER_TIMEOUT])
def test_an_error_arrives_as_it_was_sent(reason: Reason) -> None:
    reply = unpack_reply(pack_error(ScoringError(reason, "it's broken: ß")))
    assert reply.facts is None
    assert reply.error is not None
    assert (reply.error.reason, reply.error.message) == (reason, "it's broken: ß")


def test_settings_arrive_as_they_were_sent() -> None:
    wanted = Preprocessing(224, 224, "longest", "bicubic", 127)
    settings = WorkerSettings(wanted, MediaLimits(1, 2, 3.5), 10**9, 20.5, filtered=True)
    assert WorkerSettings.from_json(settings.to_json()) == settings


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=8),
)
odd_facts = st.tuples(*(st.just(value) | json_values for value in FACTS))
packets = st.binary() | (json_values | st.tuples(odd_facts, json_values, json_values)).map(
    lambda value: json.dumps(value).encode()
)


@given(packets)
def test_whatever_a_decoder_says_it_is_a_reply_or_a_broken_one(packet: bytes) -> None:
    try:
        reply = unpack_reply(packet)
    except BrokenReplyError:
        return
    assert (reply.facts is None) != (reply.error is None)
    if reply.facts is not None:
        assert 0 <= reply.facts.duration < math.inf
        assert (reply.facts.media_type + reply.facts.partial).isprintable()


@pytest.mark.parametrize("place", range(len(FACTS)))
def test_a_fact_of_the_wrong_kind_breaks_the_reply(place: int) -> None:
    for wrong in WRONG:
        reply = [*FACTS[:place], wrong, *FACTS[place + 1 :]]
        meant = isinstance(wrong, str) and place in (0, 6)
        assert meant or is_broken([reply, 1, 0])
    assert is_broken([FACTS[:place], 1, 0])
    assert is_broken([[*FACTS, FACTS[place]], 1, 0])


def test_other_broken_replies() -> None:
    for count in (None, "1", 1.0, -1, 2**32, 10**400, True):
        assert is_broken([FACTS, count, 0])
        assert is_broken([FACTS, 1, count])
    assert unpack_reply(json.dumps([FACTS, 1, 1]).encode()).hashes == 1
    for odd in ([FACTS], [FACTS, 1], [FACTS, 1, 0, 0], [FACTS, 1, 2], ["UNDECODABLE", "why", 0]):
        assert is_broken(odd)
    for packet in (b"", b"[" * 100_000, b"\xff\xfe", b"1" * 10_000, b'{"a": 1, "b": 2}'):
        with pytest.raises(BrokenReplyError):
            unpack_reply(packet)


def test_a_decoder_can_blame_nothing_but_the_file() -> None:
    for name in (*(reason.name for reason in OF_THE_SERVICE), "OK", "__class__", "\ud800"):
        assert is_broken([name, "words"])
    assert is_broken(["UNDECODABLE", 5])


def test_what_a_decoder_says_is_fit_to_be_logged() -> None:
    hostile = "a\r\nb\x1b[2Jc\u202ed\ud800e\0" + "x" * 1000
    error = unpack_reply(json.dumps(["UNDECODABLE", hostile]).encode()).error
    what = unpack_reply(json.dumps([[hostile, *FACTS[1:6], hostile], 1, 0]).encode()).facts
    assert error is not None
    assert what is not None
    for said in (error.message, what.media_type, what.partial):
        assert said.startswith("a  b [2Jc d e ")
        assert said.isprintable()
        assert len(said) <= 300


def test_views_that_a_decoder_promised_but_did_not_write_are_missed() -> None:
    stored = bytearray()
    view = View(0, 0.0, Region(0, 0, 9, 9), Background.NONE)
    media = DecodedMedia(Facts(*FACTS), (view,), [b"x" * 12])  # type: ignore[arg-type]
    pack_media(media, lambda *parts: stored.extend(b"".join(parts)))
    promised = read_from(bytes(stored[:-1]), 2, 12)
    assert (len(promised), promised.view(0)) == (2, view)
    for index in (0, 1):
        with pytest.raises(BrokenReplyError):
            promised[index]
    with pytest.raises(BrokenReplyError):
        promised.view(1)
    with pytest.raises(IndexError):
        promised[2]


@given(st.binary(min_size=60, max_size=60))
def test_whatever_a_decoder_wrote_it_is_a_view_or_a_broken_one(stored: bytes) -> None:
    try:
        view = read_from(stored, 1, 12).view(0)
    except BrokenReplyError:
        return
    assert 0 <= view.frame_time < math.inf
    assert view.background in Background


def test_hashes_that_a_decoder_promised_but_did_not_write_are_missed() -> None:
    stored = bytearray()
    view = View(0, 0.0, Region(0, 0, 9, 9), Background.NONE)
    found = PerceptualHash(0, Background.NONE, b"h" * 32, 100)
    media = DecodedMedia(Facts(*FACTS), (view,), [b"x" * 12], (found,))  # type: ignore[arg-type]
    pack_media(media, lambda *parts: stored.extend(b"".join(parts)))
    assert read_from(bytes(stored), 1, 12).hashes(1) == (found,)
    for written, count in ((stored[:-1], 1), (stored, 2)):
        with pytest.raises(BrokenReplyError):
            read_from(bytes(written), 1, 12).hashes(count)


@given(st.binary(min_size=38, max_size=38))
def test_whatever_a_decoder_wrote_it_is_a_hash_or_a_broken_one(stored: bytes) -> None:
    try:
        [found] = read_from(stored, 0, 12).hashes(1)
    except BrokenReplyError:
        return
    assert (found.background in Background, len(found.pdq)) == (True, 32)
    assert 0 <= found.quality <= 100
