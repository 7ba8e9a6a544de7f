r"""Text for PostgreSQL databases whose encoding does not hold all of Unicode.

Initdb without a locale makes databases of SQL_ASCII: they store what they get, and get UTF-8. Those
of LATIN1 and the like refuse what they have no character for. It is stored as `\u0456` then, as in
JSON and TOML, and read back as it was: no row is refused for its text, and none is changed.
"""

from __future__ import annotations

import re
from typing import Final

from psycopg import Connection
from psycopg.abc import AdaptContext, Buffer
from psycopg.types.string import StrDumperUnknown, TextLoader

_WHOLE: Final = ("UTF8", "SQL_ASCII")  # take all text
# Those of several bytes differ from Python's codecs in some characters.
_ONE_BYTE: Final = re.compile(r"LATIN\d+|ISO_8859_\d|WIN\d+|KOI8[RU]")
_ESCAPE: Final = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
_LIKE_ESCAPE: Final = re.compile(r"\\(?=[uU])")


def escaped(text: str, codec: str) -> str:
    """The text with what the codec does not have as escapes; so is a backslash before a u."""
    text = _LIKE_ESCAPE.sub(r"\\u005c", text)
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return "".join(one if _has(codec, one) else _escape(one) for one in text)
    return text


def unescaped(text: str) -> str:
    """The text that `escaped` made this of."""
    return _ESCAPE.sub(_character, text)


def hold_all_text(connection: Connection[object]) -> None:
    """Let the connection write all text, and read it back, whatever its database's encoding."""
    if (connection.info.parameter_status("server_encoding") or "UTF8") in _WHOLE:
        return
    connection.adapters.register_dumper(str, _EscapingDumper)
    for name in ("text", "varchar"):
        connection.adapters.register_loader(name, _UnescapingLoader)


class _EscapingDumper(StrDumperUnknown):
    """A writer of text that the database's encoding may not have."""

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        name = ""
        if self.connection is not None:
            name = self.connection.info.parameter_status("server_encoding") or ""
        one_byte = _ONE_BYTE.fullmatch(name) is not None
        self._codec = name.replace("WIN", "cp").replace("KOI8", "koi8_") if one_byte else "ascii"

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(escaped(obj, self._codec))


class _UnescapingLoader(TextLoader):
    """A reader of such text."""

    def load(self, data: Buffer) -> str:
        return unescaped(str(super().load(data)))


def _has(codec: str, character: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _character(match: re.Match[str]) -> str:
    code = int(match[1] or match[2], 16)
    return chr(code) if code <= 0x10FFFF else match[0]
