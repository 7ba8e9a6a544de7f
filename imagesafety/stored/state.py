"""What a scan knows: a SQLite file with what was seen of each file, and what was done with it.

Whatever is recorded stays recorded if the process is killed at any point. The lines of the report
are rows of it, written in the same transaction as what they tell.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagesafety.stored.finding import Finding, Kind
from imagesafety.stored.place import StoredFile, as_bytes, one_line
from imagesafety.stored.seen import Seen, pack_hashes, pack_views, unpack_hashes, unpack_views

_FORMAT = "1"
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scorings (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, model TEXT NOT NULL, policy TEXT NOT NULL,
    has_hashes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS judgings (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, version TEXT NOT NULL, sha256 BLOB, scoring INTEGER NOT NULL,
    judging INTEGER NOT NULL, problem TEXT NOT NULL, message TEXT NOT NULL,
    may_pass INTEGER NOT NULL, partial TEXT NOT NULL, total_frames INTEGER NOT NULL,
    views BLOB NOT NULL, hashes TEXT NOT NULL,
    kind TEXT NOT NULL, rule TEXT NOT NULL, view INTEGER, reason TEXT NOT NULL, why TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS actions (
    id INTEGER PRIMARY KEY, name BLOB NOT NULL, version TEXT NOT NULL, sha256 BLOB NOT NULL,
    action TEXT NOT NULL, rule TEXT NOT NULL, begun_at REAL NOT NULL, ended_at REAL,
    outcome TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS actions_open ON actions (id) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS lines (id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL);
"""

Line = Mapping[str, object]
"""A line of the report, without its number."""


class StateError(Exception):
    """A state file that can't be used; the message is one line."""


@dataclass(frozen=True)
class Scoring:
    """What similarities depend on: the model with its weights, and what was asked of it."""

    id: int
    model: str
    policy: str
    has_hashes: bool


@dataclass(frozen=True)
class Known:
    """What is recorded of a file in one version."""

    version: str
    scoring: int
    judging: int
    seen: Seen
    finding: Finding


@dataclass(frozen=True)
class OpenAction:
    """An action that was begun, and of which nobody has written that it ended."""

    id: int
    name: bytes
    version: str
    sha256: bytes
    action: str
    rule: str


class State:
    """The file of one scan. One process at a time; see lock.py."""

    def __init__(self, path: Path, place: str) -> None:
        """Opens it, or makes it. Raises StateError, also for the state of another place."""
        self._path = path
        try:
            path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
            known = self._meta("format", _FORMAT), self._meta("place", place)
            self.id = self._meta("id", secrets.token_hex(8))
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"{path}: {one_line(error)}") from error
        if known[0] != _FORMAT:
            raise StateError(f"{path}: it was written by another version of imagesafety")
        if known[1] != place:
            raise StateError(f"{path}: it is the state of a scan of {known[1]}, not of {place}")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def scoring(self, key: str, model: str, policy: str, *, has_hashes: bool) -> Scoring:
        """The scoring with this key, made if it is a new one."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO scorings (key, model, policy, has_hashes) VALUES (?,?,?,?)",
                (key, model, policy, has_hashes),
            )
        found = self._db.execute("SELECT id FROM scorings WHERE key = ?", (key,)).fetchone()
        return self.scoring_of(found[0])

    def scoring_of(self, id: int) -> Scoring:  # noqa: A002
        """The scoring that a file was recorded with."""
        row = self._db.execute(
            "SELECT id, model, policy, has_hashes FROM scorings WHERE id = ?", (id,)
        ).fetchone()
        return Scoring(row[0], row[1], row[2], bool(row[3]))

    def judging(self, key: str) -> int:
        """The number of a way to judge similarities, made if it is a new one."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO judgings (key) VALUES (?)", (key,))
        found = self._db.execute("SELECT id FROM judgings WHERE key = ?", (key,)).fetchone()
        return int(found[0])

    def known(self, name: str) -> Known | None:
        """What is recorded of a file."""
        row = self._db.execute(
            "SELECT version, scoring, judging, sha256, problem, message, may_pass, partial, views,"
            " total_frames, hashes, kind, rule, view, reason, why FROM files WHERE name = ?",
            (as_bytes(name),),
        ).fetchone()
        if row is None:
            return None
        version, scoring, judging, sha256, problem, message, may_pass, partial, *rest = row
        views, total_frames, hashes, kind, rule, view, reason, why = rest
        seen = Seen(
            *(sha256, problem, message, bool(may_pass), partial),
            *(unpack_views(views), total_frames, unpack_hashes(hashes)),
        )
        finding = Finding(Kind(kind), rule, view, reason, why)
        return Known(version, scoring, judging, seen, finding)

    def record(self, file: StoredFile, known: Known, line: Line | None) -> None:
        """Records a file in place of what is recorded of it, and what the report says of it."""
        seen, found = known.seen, known.finding
        with self._transaction():
            self._db.execute(
                f"INSERT OR REPLACE INTO files VALUES ({','.join('?' * 17)})",  # noqa: S608
                (
                    *(as_bytes(file.name), file.version, seen.sha256, known.scoring, known.judging),
                    *(seen.problem, seen.message, seen.may_pass, seen.partial, seen.total_frames),
                    *(pack_views(seen.views), pack_hashes(seen.hashes)),
                    *(found.kind, found.rule, found.view, found.reason, found.message),
                ),
            )
            self._add(line)

    def tell(self, line: Line) -> None:
        """Adds a line to the report, of what is not recorded of a file."""
        with self._transaction():
            self._add(line)

    def begin_action(
        self, file: StoredFile, sha256: bytes, action: str, rule: str, now: float
    ) -> OpenAction:
        """Records that something is about to be done; it is on the disk when this returns."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                made = self._db.execute(
                    "INSERT INTO actions (name, version, sha256, action, rule, begun_at)"
                    " VALUES (?,?,?,?,?,?)",
                    (as_bytes(file.name), file.version, sha256, action, rule, now),
                )
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")
        number, name = made.lastrowid or 0, as_bytes(file.name)
        return OpenAction(number, name, file.version, sha256, action, rule)

    def end_action(
        self, action: OpenAction, outcome: str, now: float, line: Line | None, *, forget: bool
    ) -> None:
        """Records what became of it. `forget`: the file is gone, or another one now."""
        with self._transaction():
            self._db.execute(
                "UPDATE actions SET ended_at = ?, outcome = ? WHERE id = ?",
                (now, outcome, action.id),
            )
            if forget:
                self._db.execute("DELETE FROM files WHERE name = ?", (action.name,))
            self._add(line)

    def open_actions(self) -> list[OpenAction]:
        """What was begun when the process was killed."""
        rows = self._db.execute(
            "SELECT id, name, version, sha256, action, rule FROM actions WHERE ended_at IS NULL"
        )
        return [OpenAction(*row) for row in rows]

    def forget(self, name: str) -> None:
        """Has a file looked at again, as if it were new."""
        with self._transaction():
            self._db.execute("DELETE FROM files WHERE name = ?", (as_bytes(name),))

    def lines_after(self, number: int) -> Iterator[tuple[int, Line]]:
        """The lines of the report from the one after `number` on."""
        rows = self._db.execute("SELECT id, content FROM lines WHERE id > ? ORDER BY id", (number,))
        for row in rows:
            yield row[0], json.loads(row[1])

    def skip_lines(self, number: int) -> None:
        """Numbers the next line higher than this, which a report has already.

        After a loss of power, the report may know more than what was saved here.
        """
        with self._transaction():
            last = self._db.execute("SELECT coalesce(max(id), 0) FROM lines").fetchone()[0]
            if last < number:
                self._db.execute("INSERT INTO lines (id, content) VALUES (?, '{}')", (number,))

    def _add(self, line: Line | None) -> None:
        if line is not None:
            self._db.execute("INSERT INTO lines (content) VALUES (?)", (json.dumps(line),))

    def _meta(self, key: str, value: str) -> str:
        """The value that was recorded first."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
        return str(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
