"""Pages of pict-rs's listing of files, read. Pure code.

Almost all of a page is opaque: a scan follows `next`, and calls a file by its aliases and by
whatever its `hex` is. Only to look one file up by its bytes one has to know how pict-rs makes both,
as all releases from 0.5.0 to 0.6.0-rc.6 do: `hex` is 39 bytes, namely SHA-256 (32), size (6,
big-endian) and format (1); a slug, at which a page begins, is the URL-safe base64 of these.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_SHA256_BYTES: Final = 32
_SIZE_BYTES: Final = 6
_HASH_BYTES: Final = _SHA256_BYTES + _SIZE_BYTES + 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# The last byte of a hash, by the media type that pict-rs declares to its validator.
_FORMATS: Final = {
    "image/apng": (0,),
    "image/avif": (4, 1),  # a still, an animation
    "image/gif": (2,),
    "image/jpeg": (5,),
    "image/jxl": (6,),
    "image/png": (7,),
    "image/webp": (8, 3),
    "video/mp4": (9,),
    "video/webm": (10,),
}


@dataclass(frozen=True, slots=True)
class StoredHash:
    """A file of pict-rs, what it is called by, and when it was stored, if pict-rs says so."""

    hex: str
    aliases: tuple[str, ...]
    stored_at: datetime | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the file; None if the hash is of another format than is known."""
        value = _hash_bytes(self.hex)
        return int.from_bytes(value[_SHA256_BYTES:-1], "big") if value is not None else None

    def has(self, sha256: bytes) -> bool:
        """True if the hash has this SHA-256 in it, at any place."""
        return sha256.hex() in self.hex.lower()


@dataclass(frozen=True, slots=True)
class HashPage:
    """A page, from newer to older files. Slugs: where it begins, and where the next one does."""

    hashes: tuple[StoredHash, ...]
    current: str | None
    next: str | None

    @property
    def first(self) -> StoredHash | None:
        """The file that the page begins with."""
        return self.hashes[0] if self.hashes else None

    @property
    def oldest(self) -> datetime | None:
        """The time of its last file, of those for which pict-rs gives one."""
        times = (entry.stored_at for entry in reversed(self.hashes))
        return next((time for time in times if time is not None), None)

    @property
    def has_known_format(self) -> bool:
        """True if hash and slug of its first file are made as `slugs_of` makes them."""
        slug = slug_of(self.hashes[0].hex) if self.hashes else None
        return slug is not None and slug == self.current


class NoPageError(Exception):
    """An answer that is not a page of hashes; the message describes it."""


def read_page(content: bytes) -> HashPage:
    """Read an answer to `GET /internal/hashes`. Raises NoPageError."""
    try:
        page = json.loads(content)["page"]
        hashes = tuple(
            StoredHash(_text(entry["hex"]), _aliases(entry), _stored_at(entry))
            for entry in page["hashes"]
        )
        return HashPage(hashes, _slug(page, "current"), _slug(page, "next"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise NoPageError("something else than a page of hashes") from None


def sorted_time(time: datetime) -> datetime:
    """Return the latest time up to one that every repository of pict-rs sorts rightly.

    Keys of its repository fjall are nanoseconds, big-endian, with the byte 0x2e escaped: so a time
    that has it comes as late as one with 0x5c, which may be hours or months later.
    """
    since = time - _EPOCH
    microseconds = (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds
    while (wrong := (microseconds * 1000).to_bytes(16, "big", signed=True).find(b".")) >= 0:
        bits = 8 * (15 - wrong)
        microseconds = ((microseconds * 1000 >> bits << bits) - 1) // 1000
    return _EPOCH + timedelta(microseconds=microseconds)


def slug_of(hash_hex: str) -> str | None:
    """Return where a page begins with a file; None if its hash is of another format."""
    value = _hash_bytes(hash_hex)
    return base64.urlsafe_b64encode(value).decode() if value is not None else None


def slugs_of(sha256: bytes, size: int, media_type: str) -> Iterator[str]:
    """Yield the slugs that a file of these bytes may have, the likely ones first."""
    likely = _FORMATS.get(media_type, ())
    others = (number for numbers in _FORMATS.values() for number in numbers)
    for number in (*likely, *(number for number in others if number not in likely)):
        value = sha256 + size.to_bytes(_SIZE_BYTES, "big") + bytes([number])
        yield base64.urlsafe_b64encode(value).decode()


def _hash_bytes(hash_hex: str) -> bytes | None:
    try:
        value = bytes.fromhex(hash_hex)
    except ValueError:
        return None
    return value if len(value) == _HASH_BYTES else None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("expected a text")
    return value


def _slug(page: dict[str, object], name: str) -> str | None:
    value = page.get(name)
    return _text(value) if value else None


def _aliases(entry: dict[str, object]) -> tuple[str, ...]:
    aliases = entry["aliases"]
    if not isinstance(aliases, list):
        raise TypeError("expected a list of aliases")
    return tuple(_text(alias) for alias in aliases)


def _stored_at(entry: dict[str, object]) -> datetime | None:
    details = entry.get("details")
    text = details.get("created_at") if isinstance(details, dict) else None
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
