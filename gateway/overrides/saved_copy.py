"""A copy of the overrides on disk, for a start while the database is down, new or emptied."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.overrides.entries import as_json, from_json
from gateway.overrides.matching import Override
from gateway.overrides.override_rows import Mark

_FORMAT = "imagesafety-overrides-1"


@dataclass(frozen=True, slots=True)
class SavedCopy:
    """The entries of a copy, and the last change that they have; copies of before name none."""

    entries: tuple[Override, ...]
    mark: Mark | None = None


class CopyError(Exception):
    """The copy can't be read or written; the message says why."""


def write_copy(path: Path, entries: Sequence[Override], mark: Mark | None = None) -> None:
    """Replaces the copy, wholly or not at all; only its owner may read it. Raises CopyError.

    The first line has the format, the number of entries, the last change that they have, and the
    SHA-256 of the other lines, of which each has an entry as JSON.
    """
    body = "".join(json.dumps(as_json(entry)) + "\n" for entry in entries).encode()
    digest = hashlib.sha256(body).hexdigest()
    described: dict[str, object] = {"format": _FORMAT, "entries": len(entries), "sha256": digest}
    if mark is not None:
        described["last_change"] = asdict(mark)
    head = json.dumps(described)
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


def read_copy(path: Path) -> SavedCopy | None:
    """The copy; None if there is none. Raises CopyError, also if it is damaged."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        described = json.loads(head)
        if described["format"] != _FORMAT:
            raise CopyError(f"{path}: another format than {_FORMAT}")
        if described["sha256"] != hashlib.sha256(body).hexdigest():
            raise CopyError(f"{path}: damaged, its checksum is wrong")
        entries = tuple(from_json(json.loads(line)) for line in body.splitlines())
        if described["entries"] != len(entries):
            raise CopyError(f"{path}: damaged, entries are missing")
        return SavedCopy(entries, _mark(described.get("last_change")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CopyError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CopyError(f"{path}: damaged ({error})") from error


def _mark(value: Mapping[str, object] | None) -> Mark | None:
    if value is None:
        return None
    seq, at, override_id = value["seq"], value["at"], value["override_id"]
    if not isinstance(seq, int) or not isinstance(at, int):
        raise TypeError("the numbers of a change must be integers")
    return Mark(seq, at, str(override_id))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
