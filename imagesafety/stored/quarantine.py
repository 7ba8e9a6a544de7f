"""A place for files that are kept away from everybody: any that fsspec knows.

Each file lies there sealed, under its SHA-256, with a small JSON beside it that says where it came
from and why. Nothing of the picture is in the JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from imagesafety.stored.opening import sftp_options
from imagesafety.stored.place import PlaceSettingError, one_line
from imagesafety.stored.sealing import SealError, seal, unseal

SEALED, NOTES = ".quarantined", ".json"


class QuarantineError(Exception):
    """The quarantine can't be used, or doesn't have a file; the message is one line."""


class Quarantine:
    """Files under a URL, sealed with a key. Blocking; every method raises QuarantineError."""

    def __init__(self, url: str, options: Mapping[str, Any], key: bytes) -> None:
        """Raises PlaceSettingError for a place that can't be meant."""
        self._key = key
        self._files, root = _open(url, options)
        self._root = root.rstrip("/")

    def hold(self, data: bytes, why: Mapping[str, object]) -> None:
        """Takes a file in; returns when it is there and was read back whole.

        `why` is added to its JSON. A file that is there already is not written again.
        """
        digest = hashlib.sha256(data).digest()
        try:
            self._files.makedirs(self._root, exist_ok=True)
            if not self._holds(digest, data):
                self._write(self._path(digest, SEALED), seal(self._key, data))
                if not self._holds(digest, data):
                    raise QuarantineError("what was written to the quarantine is not what is there")
            self._note(digest, why)
        except QuarantineError:
            raise
        except Exception as error:  # each backend has its own
            raise QuarantineError(f"the quarantine can't be used: {one_line(error)}") from error

    def holds(self, digest: bytes) -> bool:
        """Whether the file with this SHA-256 is there, whole."""
        try:
            return hashlib.sha256(self.get(digest)).digest() == digest
        except QuarantineError:
            return False

    def get(self, digest: bytes) -> bytes:
        """The file with this SHA-256."""
        path = self._path(digest, SEALED)
        try:
            data = unseal(self._key, self._files.cat_file(path), digest)
        except SealError as error:
            raise QuarantineError(f"{digest.hex()}: {error}") from error
        except FileNotFoundError as error:
            raise QuarantineError(f"{digest.hex()}: there is no such file in quarantine") from error
        except Exception as error:
            raise QuarantineError(f"the quarantine can't be used: {one_line(error)}") from error
        return data

    def _holds(self, digest: bytes, data: bytes) -> bool:
        try:
            sealed = self._files.cat_file(self._path(digest, SEALED))
            return unseal(self._key, sealed, digest) == data
        except (FileNotFoundError, SealError):
            return False

    def _note(self, digest: bytes, why: Mapping[str, object]) -> None:
        path = self._path(digest, NOTES)
        try:
            notes = json.loads(self._files.cat_file(path))
            found = [entry for entry in notes["found"] if isinstance(entry, dict)]
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            found = []
        others = [entry for entry in found if _where(entry) != _where(why)]
        notes = {"sha256": digest.hex(), "found": [*others, dict(why)]}
        self._write(path, json.dumps(notes, indent=1).encode())

    def _write(self, path: str, data: bytes) -> None:
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(path, data)
            return
        # What is removed for good elsewhere has to be on the disk here before.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _path(self, digest: bytes, kind: str) -> str:
        return f"{self._root}/{digest.hex()}{kind}"


def _where(note: Mapping[str, object]) -> tuple[object, object]:
    return note.get("from"), note.get("name")


def digest_of_name(name: str) -> bytes:
    """The SHA-256 in the name of a file in quarantine. Raises QuarantineError."""
    digest = Path(name).name.removesuffix(SEALED).removesuffix(NOTES).lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise QuarantineError(f"{name}: names in quarantine are 64 hexadecimal digits")
    return bytes.fromhex(digest)


def _open(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    options = {**options, "skip_instance_cache": True}
    try:
        if url.startswith(("sftp://", "ssh://")):
            import sshfs  # with ~/.ssh/known_hosts, which it would leave aside

            host, path, options = sftp_options(url, {"known_hosts": (), **options})
            return sshfs.SSHFileSystem(host, **options), path
        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except PlaceSettingError:
        raise
    except Exception as error:
        raise PlaceSettingError(f"the quarantine can't be used: {one_line(error)}") from error
    return files, str(root)
