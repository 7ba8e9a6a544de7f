"""From what an administrator writes to the place that is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import fsspec

from imagesafety.stored.folder import Folder
from imagesafety.stored.pict_rs_place import PictRsPlace
from imagesafety.stored.place import Place, PlaceSettingError

PICT_RS = ("pict-rs+http://", "pict-rs+https://")
_SFTP = ("sftp", "ssh")
_TEXTS = ("key", "profile", "aws_access_key_id")  # of options; other keys are lists or flags
_TEXT_WORDS = ("user", "username", "password", "passphrase", "secret", "token")
_WORDS = {"true": True, "false": False}


def open_place(url: str, options: Mapping[str, Any], pict_rs_key: str = "") -> Place:
    """The place; nothing is connected to yet. Raises PlaceSettingError."""
    if url.startswith(PICT_RS):
        if options:
            raise PlaceSettingError("pict-rs takes no --storage-option")
        if not pict_rs_key:
            raise PlaceSettingError("pict-rs needs its API key")
        _parts(url.removeprefix("pict-rs+"))
        return PictRsPlace(url.removeprefix("pict-rs+"), pict_rs_key)
    scheme, found, rest = url.partition("://")
    if not found or scheme == "file":
        if options:
            raise PlaceSettingError("a folder of this machine takes no --storage-option")
        return Folder(Path(rest if found else url))
    if scheme == "s3":
        bucket, _, base = rest.partition("/")
        if not bucket:
            raise PlaceSettingError(f"{url}: the bucket is missing: s3://BUCKET/PREFIX")
        return _open_bucket(bucket, base, options)
    if scheme in _SFTP:
        return _open_sftp(url, options)
    known = "a folder, s3://, sftp://, pict-rs+http:// or pict-rs+https://"
    raise PlaceSettingError(f"{scheme}://… is no place that can be scanned; {known} is")


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Options out of KEY=VALUE; a dot in KEY goes a level down. Raises PlaceSettingError."""
    options: dict[str, Any] = {}
    for text in texts:
        key, found, value = text.partition("=")
        if not found or not key or not value:
            raise PlaceSettingError(f"{key or text}: an option is written KEY=VALUE")
        *outer, last = key.split(".")
        level = options
        for part in outer:
            level = level.setdefault(part, {})
            if not isinstance(level, dict):
                raise PlaceSettingError(f"{key}: {part} has a value of its own")
        level[last] = value if _is_text(last) else _valued(value)
    return options


def _is_text(option: str) -> bool:
    """Whether its value is a text even if it looks like a number, as a password may."""
    words = option.lower().split("_")
    return option in _TEXTS or any(word in _TEXT_WORDS for word in words)


def _valued(text: str) -> bool | int | str:
    return _WORDS.get(text.lower(), int(text) if text.isdecimal() else text)


def sftp_options(url: str, options: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Host, path and asyncssh's options of an sftp:// URL. Raises PlaceSettingError.

    The path is taken as it is written: # and ? are parts of names, and so is %.
    """
    scheme, _, rest = url.partition("://")
    server, slash, path = rest.partition("/")
    parts = _parts(f"{scheme}://{server}")
    said = {
        "username": unquote(parts.username) if parts.username is not None else None,
        "port": parts.port,
        "password": unquote(parts.password) if parts.password is not None else None,
    }
    given = {name: value for name, value in said.items() if value is not None}
    environment = fsspec.config.conf.get("ssh", {})  # sshfs itself does not read it
    return parts.hostname or "", slash + path or "/", {**environment, **given, **options}


def _open_bucket(bucket: str, base: str, options: Mapping[str, Any]) -> Place:
    from imagesafety.stored.s3 import Bucket  # heavy, and only for those who have one

    return Bucket(bucket, base, options)


def _open_sftp(url: str, options: Mapping[str, Any]) -> Place:
    from imagesafety.stored.sftp import SftpFolder

    host, path, options = sftp_options(url, options)
    user = f"{options['username']}@" if "username" in options else ""
    port = f":{options['port']}" if "port" in options else ""
    return SftpFolder(f"sftp://{user}{host}{port}{path.rstrip('/')}/", host, path, options)


def _parts(url: str) -> SplitResult:
    """Raises PlaceSettingError, without what may be a part of a password."""
    scheme = url.partition("://")[0]
    if "?" in url or "#" in url:
        message = "the URL has no place for ? and #; in a user or a password, write %3F and %23"
        raise PlaceSettingError(f"{scheme}://…: {message}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        message = "host or port can't be meant; in a user or a password, / is written %2F"
        raise PlaceSettingError(f"{scheme}://…: {message}") from None
    if not parts.hostname or port == 0:
        raise PlaceSettingError(f"{scheme}://…: the host is missing")
    return parts
