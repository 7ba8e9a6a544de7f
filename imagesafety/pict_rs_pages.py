"""Pages of pict-rs's listing of hashes, read. Pure code.

A hash of pict-rs is SHA-256, size and format, in this order; its "slug" is the base64 of that, and
a page begins at a slug. That slugs are made so is checked in each answer.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import datetime

MOST_ON_A_PAGE = 1000  # of an answer that we read
_SHA256_BYTES, _SIZE_BYTES = 32, 8
_FORMAT = re.compile(rb"[a-z]-[a-z0-9]{3,8}")


@dataclass(frozen=True, slots=True)
class StoredHash:
    """A file of pict-rs, what it is called by, and when it was stored, if pict-rs says so."""

    hex: str
    aliases: tuple[str, ...]
    stored_at: datetime | None = None

    @property
    def sha256(self) -> bytes:
        """Of the file's bytes."""
        return bytes.fromhex(self.hex)[:_SHA256_BYTES]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        size = bytes.fromhex(self.hex)[_SHA256_BYTES : _SHA256_BYTES + _SIZE_BYTES]
        return int.from_bytes(size, "big")

    @property
    def slug(self) -> str:
        """Where a page begins with this file."""
        return base64.urlsafe_b64encode(bytes.fromhex(self.hex)).decode()


@dataclass(frozen=True, slots=True)
class HashPage:
    """A page, from newer to older files; `next` is the slug of the page after it, if any."""

    hashes: tuple[StoredHash, ...]
    next: str | None

    @property
    def first(self) -> StoredHash | None:
        """The file that the page begins with."""
        return self.hashes[0] if self.hashes else None


class NoPageError(Exception):
    """An answer that is no page of hashes, or one that we can't use; the message says which."""


def read_page(content: bytes) -> HashPage:
    """The page in an answer to `GET /internal/hashes`. Raises NoPageError."""
    try:
        page = json.loads(content)["page"]
        entries, current, following = page["hashes"], page.get("current"), page.get("next")
        hashes = tuple(
            StoredHash(_hex(entry), _aliases(entry), _stored_at(entry)) for entry in entries
        )
        if not isinstance(following, str | None):
            raise TypeError("a slug is no text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise NoPageError("something else than a page of hashes") from None
    if len(hashes) > MOST_ON_A_PAGE:
        raise NoPageError("a page of too many hashes")
    # Without this, another format of slugs would make every file look as if it were gone.
    if hashes and not (_is_hash(hashes[0].hex) and _is_slug_of(current, hashes[0].hex)):
        raise NoPageError("another format of slugs than 0.5")
    if not all(_is_hash(entry.hex) for entry in hashes):
        raise NoPageError("a hash of another format than 0.5")
    return HashPage(hashes, following)


def slug_of(sha256: bytes, size: int, format_name: str) -> str:
    """The slug of a file with these bytes in one of pict-rs's formats, such as `i-png`."""
    hash_bytes = sha256 + size.to_bytes(_SIZE_BYTES, "big") + format_name.encode()
    return base64.urlsafe_b64encode(hash_bytes).decode()


def _hex(entry: dict[str, object]) -> str:
    value = entry["hex"]
    if not isinstance(value, str):
        raise TypeError("a hash is no text")
    return value.lower()


def _aliases(entry: dict[str, object]) -> tuple[str, ...]:
    aliases = entry["aliases"]
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise TypeError("an alias is no text")
    return tuple(aliases)


def _stored_at(entry: dict[str, object]) -> datetime | None:
    details = entry.get("details")
    text = details.get("created_at") if isinstance(details, dict) else None
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None


def _is_hash(hash_hex: str) -> bool:
    try:
        value = bytes.fromhex(hash_hex)
    except ValueError:
        return False
    return _FORMAT.fullmatch(value[_SHA256_BYTES + _SIZE_BYTES :]) is not None


def _is_slug_of(slug: object, hash_hex: str) -> bool:
    if not isinstance(slug, str):
        return False
    try:
        return base64.b64decode(slug, altchars=b"-_", validate=True) == bytes.fromhex(hash_hex)
    except (binascii.Error, ValueError):
        return False
