"""Media types are told by the first bytes of a file, not by its name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.decoder.media_types import SCANNED, check_type, detect
from inference.errors import Reason, ScoringError
from tests.media import ALL, drawn, file_of

PICTURE = drawn(size=64)
FILES = {media_type: file_of(PICTURE, media_type) for media_type in ALL}


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4) + body + b"\0\0\0\x08mdat"


def ebml(doc_type: bytes) -> bytes:
    body = b"\x42\x86\x81\x01\x42\x82" + bytes([0x80 | len(doc_type)]) + doc_type
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(body)]) + body + b"\x18\x53\x80\x67"


def refusal(data: bytes, declared: str) -> Reason:
    with pytest.raises(ScoringError) as caught:
        check_type(data, declared)
    return caught.value.reason


def test_there_are_nine_types() -> None:
    assert set(SCANNED) == set(ALL)


@pytest.mark.parametrize("media_type", ALL)
def test_every_type_is_told_from_its_first_bytes(media_type: str) -> None:
    assert detect(FILES[media_type]) == media_type
    assert detect(FILES[media_type] + b"junk") == media_type


def test_containers_that_several_types_share() -> None:
    assert detect(ftyp(b"isom", b"mp42")) == "video/mp4"
    assert detect(ftyp(b"mif1", b"miaf", b"avif")) == "image/avif"
    assert detect(ftyp(b"avis", b"msf1")) == "image/avif"
    assert detect(ebml(b"webm")) == "video/webm"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"just some text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x0cjP  \r\n\x87\n" + ftyp(b"jp2 ", b"jp2 "),
        ftyp(b"jp2 "),
        ftyp(b"heic", b"mif1", b"heic"),
        ftyp(b"mif1", b"mif1", b"heic"),
        ftyp(b"hevc", b"msf1"),
        ftyp(b"qt  ", b"qt  "),
        ftyp(b"M4A ", b"isom"),
        ebml(b"matroska"),
        b"\x1a\x45\xdf\xa3\x80",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        b"%PDF-1.7",
    ],
)
def test_other_files_are_none_of_them(data: bytes) -> None:
    assert detect(data) is None
    wanted = Reason.UNSUPPORTED_TYPE if data else Reason.EMPTY_IMAGE
    assert refusal(data, "") is refusal(data, "image/png") is wanted


@given(st.sampled_from([b"", *(data[:24] for data in FILES.values())]), st.binary(max_size=300))
def test_whatever_the_bytes_there_is_an_answer(start: bytes, rest: bytes) -> None:
    assert detect(start + rest) in (None, *SCANNED)
    assert detect(rest[:1] + start) in (None, *SCANNED)


@pytest.mark.parametrize("media_type", ALL)
def test_a_file_is_what_it_is_declared_as_or_refused(media_type: str) -> None:
    data = FILES[media_type]
    png = {"image/png", "image/apng"}
    for declared in ALL:
        if declared == media_type or {declared, media_type} == png:
            assert check_type(data, declared) == media_type
        else:
            assert refusal(data, declared) is Reason.TYPE_MISMATCH
    assert check_type(data, "") == media_type
    assert check_type(data, f" {media_type.upper()} ; charset=utf-8") == media_type
    assert refusal(data, "text/html") is Reason.TYPE_MISMATCH
