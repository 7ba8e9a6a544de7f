"""An upload that comes as a multipart form with one file, as pict-rs 0.6 sends it. Pure code.

python-multipart finds the part. It takes more than a form may have (any text after the end, a form
that never ends), so what stands around the part is checked here: a file is whole only when one
part, little beside it, and the final boundary have come.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

MOST_HEADERS = 8  # lines of the part
MOST_HEADER_BYTES = 4096  # of one line
MOST_AROUND_BYTES = 16 * 1024  # of all that is not the file
MOST_BOUNDARY = 70  # RFC 2046, section 5.1.1
MOST_NAME = 1024  # characters

_FORM = "multipart/form-data"
_UNKNOWN = "application/octet-stream"  # in a form, as good as no type
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_LISTED = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')  # what stands between commas
_PARAMETER = re.compile(
    r"[ \t]*;[ \t]*([0-9A-Za-z!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*"
    r'("(?:[^"\\]|\\.)*"|[^ \t";]+)[ \t]*'
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode that no name has

# It warns of what the answer says, once for each form that anybody makes up.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class MalformedFormError(Exception):
    """A form that has no whole file; the message says why."""


@dataclass(frozen=True, slots=True)
class DeclaredContent:
    """The body of a request by its headers: the file itself, or a form with a boundary.

    `media_type` is that of the file, empty where a form gives none; then its part may.
    """

    media_type: str
    boundary: bytes | None = None


def declared_content(content_types: Sequence[str]) -> DeclaredContent:
    """Read the Content-Type headers of a request; proxies may have made one of several.

    pict-rs 0.6 sends two: the type of the file, and that of the form. Raises MalformedFormError.
    """
    values = [
        value.strip() for header in content_types for value in _listed(header) if value.strip()
    ]
    forms = [value for value in values if _type_of(value) == _FORM]
    others = [_type_of(value) for value in values if _type_of(value) != _FORM]
    if not forms:
        return DeclaredContent(others[0] if others else "")
    if len(forms) > 1:
        raise MalformedFormError(f"several Content-Type headers are {_FORM}; expected one")
    known = [media_type for media_type in others if media_type != _UNKNOWN]
    return DeclaredContent(known[0] if known else "", _boundary_of(forms[0]))


class FileForm:
    """A form that is read as it comes, and gives the bytes of its file; nothing is held.

    `name` is that of the part, and `media_type` the part's own, empty where it has none.
    """

    def __init__(self, boundary: bytes) -> None:
        self.name: str | None = None
        self.media_type = ""
        self._stage = _Stage.PREAMBLE
        self._delimiter = b"--" + boundary
        self._closing = b"\r\n" + self._delimiter + b"--"
        self._held = b"\r\n"  # a delimiter begins a line, and the body does too
        self._beginning = b""  # of the file
        self._epilogue = b""
        self._read = self._size = 0  # bytes of the form, and of its file
        self._pieces: list[bytes] = []
        self._field = self._value = b""  # of the header line that is read
        self._headers: set[str] = set()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._take_field,
                "on_header_value": self._take_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data,
                "on_end": self._end,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=MOST_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the form, and return those of the file that are certain.

        Raises MalformedFormError; nothing is to be fed after that.
        """
        self._read += len(data)
        self._pieces.clear()
        if self._stage is _Stage.EPILOGUE:
            self._epilogue += data
        else:
            if self._stage is _Stage.PREAMBLE:
                data = self._skip_preamble(data)
            if data:
                self._parse(data)
        file = b"".join(self._pieces)
        if file and self._size < len(self._delimiter):
            self._beginning += file[: len(self._delimiter)]
            if self._beginning.startswith(self._delimiter):
                # The empty line before it ends in CRLF, so this is a boundary, and no file.
                raise MalformedFormError("the part ends where its file should begin")
        self._size += len(file)
        if self._read - self._size > MOST_AROUND_BYTES:
            raise MalformedFormError(
                f"the form has too much beside its file; at most {MOST_AROUND_BYTES} bytes are read"
            )
        if self._delimiter in self._epilogue:
            raise MalformedFormError("the form goes on after its final boundary")
        return file

    def finish(self) -> None:
        """Check that the form has come to its end. Raises MalformedFormError."""
        if self._stage is not _Stage.EPILOGUE:
            raise MalformedFormError(_ENDS_EARLY[self._stage])
        if self._epilogue.lstrip(b" \t")[:2] not in (b"", b"\r\n"):
            raise MalformedFormError(_MALFORMED[_Stage.DATA])

    def _skip_preamble(self, data: bytes) -> bytes:
        """Drop what comes before the first boundary; what follows, with it."""
        first = b"\r\n" + self._delimiter
        held = self._held + data
        at = held.find(first)
        if at < 0:
            self._held = held[-len(first) + 1 :]
            return b""
        self._stage, self._held = _Stage.BOUNDARY, b""
        return held[at + 2 :]

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise MalformedFormError(_MALFORMED[self._stage]) from error
        if self._stage is _Stage.EPILOGUE:  # since now
            seen = self._held + data
            self._epilogue = seen[seen.index(self._closing) + len(self._closing) :]
        else:
            end = len(self._closing) - 1
            self._held = (self._held + data[-end:])[-end:]

    def _begin_part(self) -> None:
        if self._stage is _Stage.DATA:
            raise MalformedFormError("the form has more than one part; expected the file alone")
        self._stage = _Stage.HEADERS

    def _begin_header(self) -> None:
        self._field = self._value = b""

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name, value = self._field.decode("ascii").lower(), self._value.strip(b" \t")
        if name.startswith("--") or _CONTROL.search(value):
            raise MalformedFormError(_MALFORMED[_Stage.HEADERS])
        if name in self._headers:
            raise MalformedFormError(f"the part has two headers {name}; expected one of each")
        self._headers.add(name)
        if name == "content-disposition":
            self.name = _name_in(value.decode("utf-8", "surrogateescape"))
        elif name == "content-type":
            self.media_type = _type_of_part(value.decode("latin-1"))
        elif name == "content-transfer-encoding" and value.lower() not in _AS_IT_IS:
            raise MalformedFormError(
                f"the part is in Content-Transfer-Encoding {value.decode('latin-1')[:40]}; "
                "expected the bytes of the file as they are"
            )

    def _end_headers(self) -> None:
        if "content-disposition" not in self._headers:
            raise MalformedFormError('the part has no header "Content-Disposition: form-data"')
        self._stage = _Stage.DATA

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        if self._stage is not _Stage.DATA:
            raise MalformedFormError("the form has no part; expected the file")
        self._stage = _Stage.EPILOGUE


class _Stage(Enum):
    PREAMBLE = "before the first boundary"
    BOUNDARY = "in the first boundary"
    HEADERS = "in the headers of the part"
    DATA = "in the file"
    EPILOGUE = "after the final boundary"


_MALFORMED = {
    _Stage.BOUNDARY: "the boundary is not alone on its line; expected CRLF after it",
    _Stage.HEADERS: (
        "a header of the part is malformed; expected at most "
        f"{MOST_HEADERS} lines of {MOST_HEADER_BYTES} bytes, each with a colon and CRLF at its end"
    ),
    _Stage.DATA: "a boundary is not alone on its line; expected CRLF after it",
}
_ENDS_EARLY = {
    _Stage.PREAMBLE: "the boundary of the form never came; expected it on a line of its own",
    _Stage.BOUNDARY: "the form ends in its first boundary; expected a part with the file",
    _Stage.HEADERS: "the form ends in the headers of its part; expected a file",
    _Stage.DATA: "the final boundary is missing, so the file may not be whole",
}
_AS_IT_IS = (b"7bit", b"8bit", b"binary")


def _listed(header: str) -> list[str]:
    """The values of a header; it is one value where no form is among them."""
    return _LISTED.findall(header) if _FORM in header.lower() else [header]


def _type_of(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def _type_of_part(value: str) -> str:
    """The media type of the part. Raises MalformedFormError for a form in the form."""
    media_type = _type_of(value)
    if media_type.startswith("multipart/"):
        raise MalformedFormError(f"the part is {media_type[:40]}; expected the file itself")
    return media_type if media_type != _UNKNOWN else ""


def _boundary_of(value: str) -> bytes:
    boundary = _parameters("Content-Type", value).get("boundary")
    if not boundary:
        raise MalformedFormError(f"{_FORM} needs the parameter boundary")
    if len(boundary) > MOST_BOUNDARY:
        raise MalformedFormError(f"the boundary has over {MOST_BOUNDARY} characters")
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedFormError(
            "the boundary is invalid; expected letters, digits and '()+_,-./:=? with no space "
            "at the end"
        )
    return boundary.encode("ascii")


def _name_in(disposition: str) -> str | None:
    """The name in a Content-Disposition; None where it is empty. Raises MalformedFormError."""
    kind = _type_of(disposition)
    if kind != "form-data":
        raise MalformedFormError("the part's Content-Disposition must be form-data")
    parameters = _parameters("Content-Disposition", disposition)
    if "name*" in parameters:
        name = _extended(parameters["name*"])
    elif "name" in parameters:
        name = parameters["name"]
    else:
        raise MalformedFormError("the part has no name; expected name or name*")
    if len(name) > MOST_NAME:
        raise MalformedFormError(f"the part's name has over {MOST_NAME} characters")
    if any(unicodedata.category(character) in _UNPRINTED for character in name):
        raise MalformedFormError("the part's name must be UTF-8 without control characters")
    return name or None


def _extended(value: str) -> str:
    """The text of a value as in RFC 8187: charset'language'percent-encoded."""
    charset, first, rest = value.partition("'")
    _, second, encoded = rest.partition("'")
    if not (first and second) or charset.lower() not in ("utf-8", "iso-8859-1"):
        raise MalformedFormError("name* must begin with utf-8'' or iso-8859-1''")
    if not encoded.isascii() or re.search("%(?![0-9A-Fa-f]{2})", encoded):
        raise MalformedFormError("name* must be percent-encoded")
    try:
        return unquote_to_bytes(encoded).decode(charset)
    except UnicodeDecodeError:
        raise MalformedFormError(f"name* is not in {charset.lower()}") from None


def _parameters(header: str, value: str) -> dict[str, str]:
    """The parameters behind the first word of a header. Raises MalformedFormError."""
    found: dict[str, str] = {}
    at = len(value.partition(";")[0])
    while match := _PARAMETER.match(value, at):
        name, text = match[1].lower(), match[2]
        if name in found:
            raise MalformedFormError(f"{header} has the parameter {name[:40]} twice")
        if text.startswith('"'):
            text = re.sub(r'\\(["\\])', r"\1", text[1:-1])
        found[name] = text
        at = match.end()
    if value[at:].strip(" \t;"):
        raise MalformedFormError(f"the parameters of {header} are malformed; expected name=value")
    return found
