"""Findings and files of the first start, kept on disk for the next ones.

Files are written whole and renamed, and named by their own digest. One that is damaged, or that
another user wrote, is as good as none. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.backends.machine import file_digest

_UNFINISHED = "making-"
_STALE_SECONDS = 3600.0
_MOST_ATTEMPTS = 2
_MOST_BYTES = 1024 * 1024  # of what is read as JSON
_SIZE = re.compile("[1-9][0-9]{0,5}")  # of a batch
_LONGEST_SECONDS = 600.0  # that a batch can have taken

log = logging.getLogger("inference")


def default_cache_folder() -> Path:
    """The folder of this program in the user's cache folder, as the XDG specification says."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        parent = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as containers have
        parent = Path(tempfile.gettempdir())
    return parent / "imagesafety"


@dataclass(frozen=True)
class ModelFileName:
    """The identity of a file with a tower: all that its content depends on."""

    weights: str
    made_from: str
    precision: str

    @property
    def stem(self) -> str:
        """The part of the name before the content's digest."""
        return f"{self.weights[:16]}-{self.made_from[:16]}-{self.precision}"


class BackendCache:
    """A folder with choices and times of batches (JSON), and model files (ONNX).

    A folder of None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        """Makes the folder; if that fails, `refused` says why and nothing is kept."""
        self._folder = folder
        self.refused = ""
        if folder is None:
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
            if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
                raise PermissionError(f"{folder} can be written by others")
            if found.st_mode & stat.S_IWGRP:
                # Kubernetes opens all of a volume with fsGroup to that group, at each mount.
                folder.chmod(0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            self.refused = str(error)
            log.warning("no cache, each start measures anew: %s", error)
            self._folder = None
            return
        self._remove_unfinished(folder)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder for files that are being made; `keep_model` takes them from there."""
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._folder) as name:
            yield Path(name)

    def choice(self, key: str) -> str | None:
        """The name of the tower that was chosen for a key."""
        content = self._read(f"choice-{key}.json")
        chosen = None if content is None else content.get("chosen")
        return chosen if isinstance(chosen, str) else None

    def keep_choice(self, key: str, chosen: str, report: Mapping[str, Any]) -> None:
        """Keeps the name of a tower, and for people why it was chosen."""
        self._write(f"choice-{key}.json", {"chosen": chosen, **report})

    def batch_times(self, key: str, largest: int) -> dict[int, float] | None:
        """Seconds of a batch by its size, for size 1 and others up to `largest`, kept for a key."""
        content = self._read(f"times-{key}.json")
        kept = None if content is None else content.get("seconds")
        if not isinstance(kept, dict):
            return None
        for size, seconds in kept.items():
            if not _SIZE.fullmatch(size) or int(size) > largest:
                return None
            if type(seconds) is not float or not 0 < seconds <= _LONGEST_SECONDS:
                return None
        return {int(size): seconds for size, seconds in kept.items()} if "1" in kept else None

    def keep_batch_times(self, key: str, times: Mapping[int, float]) -> None:
        """Keep seconds of a batch by its size."""
        self._write(f"times-{key}.json", {"seconds": dict(times)})

    def begin(self, key: str) -> bool:
        """Notes that a choice begins. False if earlier ones did not come to their end.

        Making candidates takes memory: where the process is killed for it, the next start has to
        come up without.
        """
        name = f"unfinished-{key}.json"
        attempts = (self._read(name) or {}).get("attempts", 0)
        if not isinstance(attempts, int) or attempts >= _MOST_ATTEMPTS:
            log.warning(
                "the choice of a backend was cut off %s times and is left out; delete %s to try it",
                *(attempts, self._folder and self._folder / name),
            )
            return False
        self._write(name, {"attempts": attempts + 1})
        return True

    def end(self, key: str) -> None:
        """Notes that a choice came to its end."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / f"unfinished-{key}.json").unlink(missing_ok=True)

    def model(self, name: ModelFileName) -> Path | None:
        """A model file, if there is one that is whole and this user's own."""
        if self._folder is None:
            return None
        for path in self._folder.glob(f"{name.stem}.*.onnx"):
            try:
                if path.stat().st_uid != os.geteuid():
                    reason = "it is another user's"
                elif file_digest(path) != path.name.split(".")[-2]:
                    reason = "it is damaged"
                else:
                    return path
            except OSError as error:
                reason = str(error)
            log.warning("cached model %s is made anew: %s", path, reason)
        return None

    def keep_model(self, name: ModelFileName, file: Path) -> Path:
        """Moves a file into the cache if it can, and tells where it is; what it replaces goes."""
        if self._folder is None or file.parent == self._folder:
            return file
        try:
            earlier = list(self._folder.glob(f"{name.weights[:16]}-*-{name.precision}.*.onnx"))
            target = file.replace(self._folder / f"{name.stem}.{file_digest(file)}.onnx")
        except OSError as error:
            log.warning("the exported model can't be kept: %s", error)
            return file
        for path in earlier:
            if path != target:
                with contextlib.suppress(OSError):
                    path.unlink()
        return target

    def _read(self, name: str) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    raise ValueError("it is another user's")
                content = json.loads(file.read(_MOST_BYTES))
            if not isinstance(content, dict):
                raise ValueError("no table in it")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.warning("cached file %s is left out: %s", path, error)
            return None
        return content

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        if self._folder is None:
            return
        try:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", prefix=_UNFINISHED, dir=self._folder, delete=False
            ) as file:
                json.dump(content, file, indent=1)
            Path(file.name).replace(self._folder / name)
        except OSError as error:
            log.warning("%s can't be kept in the cache: %s", name, error)

    @staticmethod
    def _remove_unfinished(folder: Path) -> None:
        """Remove files of a killed process; younger ones may belong to another at work."""
        for path in folder.glob(f"{_UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
