"""What a scan knows: a SQLite file with what was seen of each file, and what was done with it.

Whatever is recorded stays recorded if the process is killed at any point. The lines of the report
are rows of it, written in the same transaction as what they tell.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from imagesafety.stored.finding import Finding, Kind
from imagesafety.stored.place import StoredFile, as_bytes, one_line
from imagesafety.stored.seen import Seen, pack_hashes, pack_views, unpack_hashes, unpack_views
from imagesafety.stored.state_rows import Known as Known  # others import them from here
from imagesafety.stored.state_rows import Line as Line
from imagesafety.stored.state_rows import OpenAction as OpenAction
from imagesafety.stored.state_rows import Scoring as Scoring
from imagesafety.stored.state_tables import ADDED, TABLES

_FORMAT = "1"


class StateError(Exception):
    """A state file that can't be used; the message is one line."""


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
                for statement in TABLES.split(";"):
                    self._db.execute(statement)
                self._add_columns()
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

    def scoring(
        self, key: str, model: str, policy: str, *, has_hashes: bool, terms: str = ""
    ) -> Scoring:
        """The scoring with this key, made if it is a new one."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO scorings (key, model, policy, has_hashes, terms)"
                " VALUES (?,?,?,?,?)",
                (key, model, policy, has_hashes, terms),
            )
        found = self._db.execute("SELECT id FROM scorings WHERE key = ?", (key,)).fetchone()
        return self.scoring_of(found[0])

    def scoring_of(self, id: int) -> Scoring:  # noqa: A002
        """The scoring that a file was recorded with."""
        row = self._db.execute(
            "SELECT id, model, policy, has_hashes, terms FROM scorings WHERE id = ?", (id,)
        ).fetchone()
        return Scoring(row[0], row[1], row[2], bool(row[3]), row[4])

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

    def open_since(self, prefix: str) -> float | None:
        """From when on not all files with the prefix were looked at, as far as rounds have said."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (_since(prefix),)).fetchone()
        return float(row[0]) if row is not None else None

    def leave_open(self, prefix: str, since: float) -> None:
        """Records what `open_since` tells from now on."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_since(prefix), repr(since))
            )

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

    def _add_columns(self) -> None:
        for table, (column, kind) in ADDED.items():
            rows = self._db.execute(f"PRAGMA table_info({table})")
            if column not in [row[1] for row in rows]:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    def _meta(self, key: str, value: str) -> str:
        """The value that was recorded first."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
        return str(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")  # for which there may be no room
        except BaseException:
            if self._db.in_transaction:  # SQLite may have gone back by itself
                self._db.execute("ROLLBACK")
            raise


def _since(prefix: str) -> str:
    return f"open since {as_bytes(prefix).hex()}"
