"""A copy of the overrides on disk, for a start while the database is down."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gateway.overrides.entries import as_json, from_json
from gateway.overrides.matching import Override

_FORMAT = "imagesafety-overrides-1"


class CopyError(Exception):
    """The copy can't be read or written; the message says why."""


def write_copy(path: Path, entries: Sequence[Override]) -> None:
    """Replaces the copy, wholly or not at all; only its owner may read it. Raises CopyError.

    The first line has the format, the number of entries and the SHA-256 of the other lines, of
    which each has an entry as JSON.
    """
    body = "".join(json.dumps(as_json(entry)) + "\n" for entry in entries).encode()
    digest = hashlib.sha256(body).hexdigest()
    head = json.dumps({"format": _FORMAT, "entries": len(entries), "sha256": digest})
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp's mode is 0600.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(head.encode() + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise CopyError(f"{path}: {error.strerror or error}") from error


def read_copy(path: Path) -> list[Override] | None:
    """The entries of the copy; None if there is none. Raises CopyError, also if it is damaged."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        described = json.loads(head)
        if described["format"] != _FORMAT:
            raise CopyError(f"{path}: another format than {_FORMAT}")
        if described["sha256"] != hashlib.sha256(body).hexdigest():
            raise CopyError(f"{path}: damaged, its checksum is wrong")
        entries = [from_json(json.loads(line)) for line in body.splitlines()]
        if described["entries"] != len(entries):
            raise CopyError(f"{path}: damaged, entries are missing")
        return entries
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CopyError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CopyError(f"{path}: damaged ({error})") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
