"""A real PostgreSQL server in a folder of its own, from Debian's packages."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.e2e.processes import wait_until

SUPERUSER = "gateway"


def binaries() -> Path | None:
    """The folder of the newest server that is installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


class Postgres:
    """A server on a Unix socket that nobody else can reach."""

    def __init__(
        self,
        folder: Path,
        programs: Path,
        user: pwd.struct_passwd | None,
        *,
        durable: bool,
        encoding: str,
    ) -> None:
        self._folder, self._programs = folder, programs
        # Not Popen's `user`, for which it forks: in the child of a process with threads of gRPC and
        # torch, that now and then ends with a segmentation fault.
        self._as_user: list[str] = []
        if user is not None:
            ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
            self._as_user = ["setpriv", *ids, "--"]
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        flags = ("-D", "data", "-U", SUPERUSER, "-A", "trust", "--no-sync")
        self._run("initdb", *flags, f"--encoding={encoding}", "--no-locale")

    def _run(self, program: str, *arguments: str) -> None:
        with self._log.open("ab") as log:
            subprocess.run(
                [*self._as_user, self._programs / program, *arguments],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                check=True,
            )

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """The URL of a database; `user` may have a password behind a colon."""
        return f"postgresql+psycopg://{user}@/{database}?host={self._folder}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._folder),
            user=SUPERUSER,
            dbname=database,
            autocommit=True,
            client_encoding="utf8",
        )

    def new_database(self, options: str = "") -> str:
        """The URL of an empty database, made with SQL's options such as ENCODING."""
        name = self.new_name()
        self.run(f"create database {name} {options}")
        return self.url(name)

    def new_name(self) -> str:
        """A name that no database or role has."""
        return f"ledger{next(self._names)}"

    def run(self, *statements: str, url: str = "") -> list[tuple[object, ...]]:
        """The result of the last of some SQL statements, each in a transaction of its own."""
        database = url.partition("@/")[2].partition("?")[0] or "postgres"
        with self.connect(database) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def admit(self, *lines: str) -> None:
        """Change the rules for connections: lines of pg_hba.conf, ahead of those that admit all."""
        everybody = f"local all {SUPERUSER} trust"
        content = "\n".join((everybody, *lines, "local all all trust", ""))
        (self._folder / "data" / "pg_hba.conf").write_text(content)
        before = self.run("select pg_conf_load_time()")
        self.run("select pg_reload_conf()")
        reloaded = "reload of PostgreSQL's settings"
        wait_until(lambda: self.run("select pg_conf_load_time()") != before, reloaded, 60)

    def start(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            "fsync": "on" if self._durable else "off",
            "max_connections": "50",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        end = time.monotonic() + 60
        while True:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._as_user, self._programs / "postgres", "-D", "data", *flags],
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                )
            wait_until(lambda: self._answers() or not self._runs(), "start of PostgreSQL", 60)
            if self._runs():
                return
            # After a kill, the children of the old server need a moment to notice.
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.1)

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        """Ends it as an administrator does who doesn't wait for clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends it as a loss of power does, but for what the kernel has."""
        assert self._process is not None
        for pid in self._children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def discard(self) -> None:
        """Ends it without saving anything."""
        with contextlib.suppress(AssertionError):
            self.resume()
        self._end(signal.SIGQUIT)

    def restart_as_standby(self) -> None:
        """Make it take no writes any more, until somebody promotes it."""
        self.stop()
        (self._folder / "data" / "standby.signal").touch()
        self.start()

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(60)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Makes it hang: connections stay open, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, signum: signal.Signals) -> None:
        assert self._process is not None
        # The parent first: it starts no more children then.
        self._process.send_signal(signum)
        for pid in self._children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]


def _unprivileged_user() -> pwd.struct_passwd | None:
    """The user that runs the server: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    return users.get("postgres", users["nobody"])


@contextlib.contextmanager
def running_postgres(*, durable: bool = False, encoding: str = "UTF8") -> Iterator[Postgres]:
    """A running server; skips the test where none is installed.

    Without `durable`, fsync is off: what is written outlives the server, but not the machine.
    `encoding` is that of its databases: SQL_ASCII is what initdb takes where there is no locale.
    """
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user.pw_uid)
        server = Postgres(folder, programs, user, durable=durable, encoding=encoding)
        server.start()
        try:
            yield server
        finally:
            server.discard()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests that leave it running; each makes a database of its own."""
    with running_postgres() as server:
        yield server
