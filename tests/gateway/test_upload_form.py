"""A form with a file: the same file however its bytes come, and none where it is broken."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.upload_form import (
    DeclaredContent,
    FileForm,
    MalformedFormError,
    declared_content,
)
from tests.forms import BOUNDARY, CONTENT_TYPES, DISPOSITION, NAME, broken_forms, form, split

SHORT = "b"  # a boundary that pieces of files are likely to begin with
PLACES = st.lists(st.integers(0, 400), max_size=20)
# Files that look like boundaries up to a point.
NEARLY = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--", b"\r\n-", b"b", b"\0", b"a"]),
    max_size=30,
).map(b"".join)


def read(boundary: str, pieces: list[bytes]) -> tuple[bytes, FileForm]:
    """The file of a form. Raises MalformedFormError."""
    reading = FileForm(boundary.encode())
    file = b"".join([reading.feed(piece) for piece in pieces])
    reading.finish()
    return file, reading


def read_declared(content_types: tuple[str, ...], pieces: list[bytes]) -> bytes:
    boundary = declared_content(content_types).boundary
    assert boundary is not None
    return read(boundary.decode(), pieces)[0]


@given(st.binary(max_size=300) | NEARLY, PLACES)
@example(b"", [])
@example(b"\r\n--", [1, 2, 3])
def test_any_split_gives_the_same_file(file: bytes, places: list[int]) -> None:
    found, reading = read(BOUNDARY, split(form(file), places))
    assert (found, reading.name, reading.media_type) == (file, NAME, "")


@given(NEARLY.filter(lambda file: b"\r\n--b" not in b"\r\n" + file), PLACES)
def test_what_is_nearly_a_boundary_is_of_the_file(file: bytes, places: list[int]) -> None:
    whole = form(file, boundary=SHORT)
    assert read(SHORT, split(whole, places))[0] == file
    assert read(SHORT, split(whole, range(len(whole))))[0] == file


@given(NEARLY, PLACES)
def test_how_a_form_is_split_makes_no_other_of_it(body: bytes, places: list[int]) -> None:
    """Whatever the body of the form is, boundaries in the file and all."""
    whole = form(body, boundary=SHORT)

    def outcome(pieces: list[bytes]) -> bytes | None:
        try:
            return read(SHORT, pieces)[0]
        except MalformedFormError:
            return None

    at_once = outcome([whole])
    assert at_once in (None, body)
    assert outcome(split(whole, places)) == outcome(split(whole, range(len(whole)))) == at_once


def test_no_part_of_a_form_is_a_whole_file() -> None:
    whole = form(b"a\r\n--file", end="--")
    for end in range(len(whole)):
        with pytest.raises(MalformedFormError):
            read(BOUNDARY, [whole[:end]])
    assert read(BOUNDARY, [whole])[0] == b"a\r\n--file"


@pytest.mark.parametrize("what", broken_forms(b"file"))
def test_a_broken_form_is_refused_with_a_reason(what: str) -> None:
    content_types, body = broken_forms(b"file")[what]
    for step in (len(body) or 1, 1000, 7, 1):
        with pytest.raises(MalformedFormError) as refusal:
            read_declared(content_types, split(body, range(0, len(body), step)))
        assert str(refusal.value)
        assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "body",
    [
        form(b"file", end="--"),
        form(b"file", end="-- \t\r\n"),
        form(b"file", end="--\r\nan epilogue, which counts for nothing\r\n"),
        b"\r\n" + form(b"file"),
        b"a preamble, which counts for nothing\r\n" + form(b"file"),
        b"--" + form(b"file").replace(b"--", b"\r\n--", 1),
        form(b"file", DISPOSITION, "Content-Transfer-Encoding: binary", "X-Any: thing"),
        form(b"file", DISPOSITION, "Content-Length: 4"),
    ],
)
def test_what_a_form_may_have_beside_its_file(body: bytes) -> None:
    assert read(BOUNDARY, [body])[0] == b"file"
    assert read(BOUNDARY, split(body, range(len(body))))[0] == b"file"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="a.png"', "file"),
        ("form-data; name=file", "file"),
        ("FORM-DATA;NAME=file;", "file"),
        ("form-data; name=a(b)[c]/d:e=f,g", "a(b)[c]/d:e=f,g"),
        (r'form-data; name="a\"b\\c\d;e"', r'a"b\c\d;e'),
        ('form-data; name=""', None),
        ("form-data; name*=UTF-8'en'%e2%82%ac%20a", "€ a"),
        ("form-data; name*=iso-8859-1''%A3", "£"),
        ("form-data; name=a; name*=utf-8''b", "b"),
        ("form-data; name*=utf-8''b; name=a", "b"),
        ("form-data; name*=utf-8''", None),
        ("form-data; name*=utf-8''a!b'c(d)@e:f=g,h", "a!b'c(d)@e:f=g,h"),
        ('form-data; name="€"'.encode().decode("latin-1"), "€"),
        (f'form-data; name="{"a" * 1024}"', "a" * 1024),
    ],
)
def test_the_name_of_the_part(disposition: str, name: str | None) -> None:
    assert read(BOUNDARY, [form(b"file", disposition)])[1].name == name


@pytest.mark.parametrize(
    ("line", "media_type"),
    [
        ("Content-Type: image/png", "image/png"),
        ("content-type:IMAGE/JPEG; a=b", "image/jpeg"),
        ("Content-Type: application/octet-stream", ""),
        ("Content-Type:", ""),
        ("Content-Type: text/plain", "text/plain"),
    ],
)
def test_the_type_of_the_part(line: str, media_type: str) -> None:
    assert read(BOUNDARY, [form(b"file", DISPOSITION, line)])[1].media_type == media_type


@pytest.mark.parametrize(
    ("content_types", "media_type", "boundary"),
    [
        ([], "", None),
        (["image/png"], "image/png", None),
        (["Image/PNG; a=b"], "image/png", None),
        (["image/png", "image/gif"], "image/png", None),
        (["multipart/mixed; boundary=b"], "multipart/mixed", None),
        (["application/octet-stream"], "application/octet-stream", None),
        (CONTENT_TYPES, "image/png", BOUNDARY.encode()),
        (CONTENT_TYPES[::-1], "image/png", BOUNDARY.encode()),
        ([", ".join(CONTENT_TYPES)], "image/png", BOUNDARY.encode()),
        ([CONTENT_TYPES[1]], "", BOUNDARY.encode()),
        (["application/octet-stream", CONTENT_TYPES[1]], "", BOUNDARY.encode()),
        (["Multipart/Form-Data;BOUNDARY=b"], "", b"b"),
        (['multipart/form-data; charset=utf-8; boundary="a b,\'c"'], "", b"a b,'c"),
        (["multipart/form-data; boundary=----=_a/b:c?"], "", b"----=_a/b:c?"),
        ([f"multipart/form-data; boundary={'a' * 70};"], "", b"a" * 70),
    ],
)
def test_what_the_headers_say_of_a_body(
    content_types: list[str], media_type: str, boundary: bytes | None
) -> None:
    assert declared_content(content_types) == DeclaredContent(media_type, boundary)
