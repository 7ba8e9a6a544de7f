"""A place for files that are kept away from everybody: a folder, S3, SFTP.

Each file lies there sealed, under its SHA-256, with a small JSON beside it that says where it came
from and why. Nothing of the picture is in the JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagesafety.stored.place import one_line
from imagesafety.stored.quarantine_store import open_store
from imagesafety.stored.sealing import SealError, seal, sealed_size, unseal

SEALED, NOTES = ".quarantined", ".json"


class QuarantineError(Exception):
    """The quarantine can't be used, or doesn't have a file; the message is one line."""


class Quarantine:
    """Files under a URL, sealed with a key. Blocking; every method raises QuarantineError."""

    def __init__(self, url: str, options: Mapping[str, Any], key: bytes) -> None:
        """Raises PlaceSettingError for a place that can't be meant."""
        self._key = key
        self._store = open_store(url, options)

    def hold(self, data: bytes, why: Mapping[str, object]) -> None:
        """Takes a file in; returns when it is there and was read back whole.

        `why` is added to its JSON. A file that is there already is not written again.
        """
        digest = hashlib.sha256(data).digest()
        try:
            self._store.prepare()
            if self._holds(digest, data):
                # Whoever wrote it may have been killed before it was on the disk.
                self._store.settle(_name(digest, SEALED))
            else:
                self._store.write(_name(digest, SEALED), seal(self._key, data))
                if not self._holds(digest, data):
                    raise QuarantineError("what was written to the quarantine is not what is there")
            self._note(digest, why)
        except QuarantineError:
            raise
        except Exception as error:  # each backend has its own
            raise QuarantineError(f"the quarantine can't be used: {one_line(error)}") from error

    def holds(self, digest: bytes) -> bool:
        """Whether the file with this SHA-256 is there, whole. Raises where nobody can tell."""
        try:
            return hashlib.sha256(self._unsealed(digest)).digest() == digest
        except (FileNotFoundError, SealError):
            return False
        except Exception as error:
            raise QuarantineError(f"the quarantine can't be used: {one_line(error)}") from error

    def get(self, digest: bytes) -> bytes:
        """The file with this SHA-256."""
        try:
            return self._unsealed(digest)
        except SealError as error:
            raise QuarantineError(f"{digest.hex()}: {error}") from error
        except FileNotFoundError as error:
            raise QuarantineError(f"{digest.hex()}: there is no such file in quarantine") from error
        except Exception as error:
            raise QuarantineError(f"the quarantine can't be used: {one_line(error)}") from error

    def _unsealed(self, digest: bytes) -> bytes:
        """Raises SealError, and whatever the store does."""
        return unseal(self._key, self._store.read(_name(digest, SEALED)), digest)

    def _holds(self, digest: bytes, data: bytes) -> bool:
        """Whether it is there. What is of another size was half written, and is as good as none."""
        try:
            sealed = self._store.read(_name(digest, SEALED))
            return unseal(self._key, sealed, digest) == data
        except FileNotFoundError:
            return False
        except SealError as error:
            if len(sealed) == sealed_size(len(data)):
                message = f"{_name(digest, SEALED)} is in quarantine, but {error}; move it away"
                raise QuarantineError(message) from error
            return False

    def _note(self, digest: bytes, why: Mapping[str, object]) -> None:
        name = _name(digest, NOTES)
        try:
            notes = json.loads(self._store.read(name))
            found = [dict(entry) for entry in notes["found"]]
        except FileNotFoundError:
            found = []
        except (ValueError, LookupError, TypeError) as error:
            message = f"{name} in quarantine is damaged, which says where the file is from"
            raise QuarantineError(f"{message}; move it away") from error
        others = [entry for entry in found if _where(entry) != _where(why)]
        notes = {"sha256": digest.hex(), "found": [*others, dict(why)]}
        self._store.write(name, json.dumps(notes, indent=1).encode())


def _name(digest: bytes, kind: str) -> str:
    return f"{digest.hex()}{kind}"


def _where(note: Mapping[str, object]) -> tuple[object, object]:
    return note.get("from"), note.get("name")


def digest_of_name(name: str) -> bytes:
    """The SHA-256 in the name of a file in quarantine. Raises QuarantineError."""
    digest = Path(name).name.removesuffix(SEALED).removesuffix(NOTES).lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise QuarantineError(f"{name}: names in quarantine are 64 hexadecimal digits")
    return bytes.fromhex(digest)
