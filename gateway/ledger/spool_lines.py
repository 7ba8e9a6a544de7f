"""The lines of spool files: a checksum and JSON, for a row or a policy. Pure code."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import LargeBinary

from gateway.ledger.policy_text import PolicyText
from gateway.ledger.tables import decisions

ROW_MARK = b'{"row":'
_BINARY = [column.name for column in decisions.columns if isinstance(column.type, LargeBinary)]
# What a row written by an older version lacks, so that it can still be read by this one.
_EMPTY: dict[type, object] = {str: "", int: 0, float: 0.0, bool: False, bytes: b""}
_ABSENT = {
    column.name: None if column.nullable else _EMPTY[column.type.python_type]
    for column in decisions.columns
    if column.name != "seq"
}


class DamagedLineError(ValueError):
    """A line is not as it was written."""


def line_of_row(row: Mapping[str, object]) -> bytes:
    """The line of a row of `decisions`."""
    return _line({"row": row})


def line_of_policy(policy: PolicyText) -> bytes:
    """The line of a policy."""
    return _line({"policy": asdict(policy)})


def parse_line(line: bytes) -> dict[str, Any] | PolicyText:
    """What is in a line: a row or a policy. Raises DamagedLineError."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if checksum != _checksum(text) or not line.endswith(b"\n"):
        raise DamagedLineError
    try:
        content = json.loads(text)
        if "policy" in content:
            return PolicyText(**content["policy"])
        row = {**_ABSENT, **{k: v for k, v in content["row"].items() if k in _ABSENT}}
        for name in _BINARY:
            if row[name] is not None:
                row[name] = base64.b64decode(row[name], validate=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedLineError from error
    return row


def _line(content: Mapping[str, object]) -> bytes:
    text = json.dumps(content, separators=(",", ":"), default=_as_base64).encode()
    return b"%s %s\n" % (_checksum(text), text)


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _as_base64(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} in a row")
    return base64.b64encode(value).decode()
