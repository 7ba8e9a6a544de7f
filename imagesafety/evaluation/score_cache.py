"""Scores that were paid for once, in an SQLite file: an interrupted run goes on where it was.

The key is the SHA-256 of the file, the model and its weights, and what was asked of the service;
so what another model or other concepts gave is never taken for these. There are no images in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from imagesafety.evaluation.cached_scores import CachedScores, from_row, to_row

_VERSION = 1
_MOST_UNSAVED = 256  # results; what a killed run has to score again
_SECONDS_UNSAVED = 0.5
_TABLES = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS sections (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS scores (
    section INTEGER NOT NULL REFERENCES sections, sha256 BLOB NOT NULL, content TEXT NOT NULL,
    similarities BLOB, embeddings BLOB, UNIQUE (section, sha256)
);
"""
_FIND = "SELECT content, similarities, embeddings FROM scores WHERE section = ? AND sha256 = ?"
_ANY = "SELECT 1 FROM scores WHERE section = ? LIMIT 1"
_SAVE = "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?)"


class CacheError(Exception):
    """The cache can't be used; the message is one line."""


class ScoreCache:
    """The file. Use it as a context; any thread may call it, and several processes at once."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises CacheError."""
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise CacheError(f"{path}: the score cache can't be opened: {error}") from error
        try:
            self._prepare()
        except (sqlite3.Error, CacheError) as error:
            self._connection.close()
            if isinstance(error, CacheError):
                raise
            raise CacheError(f"{path}: no score cache: {error}") from error

    def _prepare(self) -> None:
        # What a crash of the machine takes of the log, it takes from the end: it is scored again.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        [(version,)] = self._connection.execute("PRAGMA user_version")
        if version not in (0, _VERSION):
            raise CacheError(
                f"{self.path}: the score cache is of another version of imagesafety; delete it, or "
                "name another file"
            )
        if version == 0:
            self._connection.executescript(f"BEGIN; {_TABLES} COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:  # a thread may still be writing
            self._connection.close()

    def section(
        self, model: str, weights_digest: str, options_digest: str, *, embeddings: bool = False
    ) -> CacheSection:
        """What is kept of this model for calls with these options. Raises CacheError."""

        def number(with_embeddings: bool) -> int:
            key = json.dumps([model, weights_digest, options_digest, with_embeddings])
            self._execute("INSERT OR IGNORE INTO sections (key) VALUES (?)", (key,))
            [(found, *_)] = self._execute("SELECT id FROM sections WHERE key = ?", (key,))
            return int(str(found))

        # Scores with embeddings serve those who want none as well, if there are any.
        numbers = [number(embeddings)]
        if not embeddings and self._execute(_ANY, (number(True),)):
            numbers.append(number(True))
        return CacheSection(self, tuple(numbers))

    def _execute(self, statement: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise CacheError(f"{self.path}: {error}") from error

    def _save(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Writes all rows in one transaction."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_SAVE, rows)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise CacheError(f"{self.path}: {error}") from error


class CacheSection:
    """The part of a cache that belongs to one model and one way of asking it."""

    def __init__(self, cache: ScoreCache, numbers: tuple[int, ...]) -> None:
        """`numbers` are of the sections to look in; what is new goes to the first."""
        self._cache, self._numbers = cache, numbers
        self._unsaved: dict[bytes, CachedScores] = {}
        self._last_saved = time.monotonic()

    def get(self, sha256: bytes) -> CachedScores | None:
        """What is known of the file with this hash. Raises CacheError."""
        if (unsaved := self._unsaved.get(sha256)) is not None:
            return unsaved
        for number in self._numbers:
            for content, similarities, embeddings in self._cache._execute(_FIND, (number, sha256)):
                return from_row(content, similarities, embeddings)
        return None

    def put(self, sha256: bytes, scores: CachedScores) -> bool:
        """Keeps what became of a file; whether it is time to `flush`."""
        self._unsaved[sha256] = scores
        late = time.monotonic() - self._last_saved > _SECONDS_UNSAVED
        return late or len(self._unsaved) >= _MOST_UNSAVED

    def flush(self) -> None:
        """Writes what is not written yet, in one transaction. Raises CacheError."""
        rows = dict(self._unsaved)
        if rows:
            number = self._numbers[0]
            self._cache._save((number, key, *to_row(scores)) for key, scores in rows.items())
        for key in rows:
            self._unsaved.pop(key, None)
        self._last_saved = time.monotonic()


def default_cache() -> Path:
    """Where scores are kept if nothing else is said."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "imagesafety" / "scores.sqlite3"
