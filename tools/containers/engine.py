"""The container engine: one that runs, or Debian's, started for this run alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

COMPOSE_VERSION: Final = "v2.40.3"  # where none is installed; built from the Go module proxy
_COMPOSE_MODULE: Final = f"github.com/docker/compose/v2@{COMPOSE_VERSION}"
_PACKAGES: Final = ("docker.io", "iptables", "debootstrap")
# Tried in this order: overlay2 does not work on every file system.
_STORAGE_DRIVERS: Final = ("overlay2", "fuse-overlayfs", "vfs")
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5
_BUILD_SECONDS: Final = 1800.0
_TAIL: Final = 30  # lines of a failed command's output that are shown


class NoEngineError(Exception):
    """No engine can be had here; the message says why."""


class CommandError(Exception):
    """A command failed; the message has the last lines of its output."""


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers: its client, Compose, and what both need in the environment."""

    client: str
    compose: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def docker(
        self,
        *arguments: str,
        folder: Path | None = None,
        seconds: float = 600,
    ) -> str:
        """Run the client; what it prints. Raises CommandError."""
        return run_command(
            *(self.client, *arguments),
            folder=folder,
            seconds=seconds,
            environment=self.environment,
        )

    def run_compose(self, *arguments: str, folder: Path, seconds: float = 600) -> str:
        """Run Compose in a project's folder; what it prints. Raises CommandError."""
        return run_command(
            *(*self.compose, *arguments),
            folder=folder,
            seconds=seconds,
            environment=self.environment,
        )

    def answers(self) -> bool:
        """True if the engine answers."""
        with contextlib.suppress(CommandError):
            return bool(self.docker("version", "--format", "{{.Server.Version}}", seconds=20))
        return False


def run_command(
    *command: str,
    folder: Path | None = None,
    seconds: float = 600,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command; what it prints. Raises CommandError."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL:])
        raise CommandError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


@contextlib.contextmanager
def engine(cache: Path) -> Iterator[Engine]:
    """An engine, until the block ends. Raises NoEngineError.

    One that runs is used as it is. Else, where INSTALL_ENGINE is 1, root gets Debian's, started
    with a configuration, a socket and a data folder of its own below `cache`.
    """
    for client in _clients():
        found = Engine(client, environment={"DOCKER_BUILDKIT": "1"})
        if _builds(client) and found.answers():
            yield _with_compose(found, cache)
            return
    if os.environ.get("INSTALL_ENGINE") != "1":
        raise NoEngineError("no Docker engine answers here (INSTALL_ENGINE=1 installs Debian's)")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoEngineError("no Docker engine answers here, and only root can install Debian's")
    _install()
    # The client that was there already may be one whose BuildKit is a plugin that is missing.
    builders = [client for client in _clients() if _builds(client)]
    daemon = shutil.which("dockerd")
    if not builders or daemon is None:
        raise NoEngineError("Debian's docker.io has no client that builds images")
    with _started(daemon, builders[0], cache / "engine") as started:
        yield _with_compose(started, cache)


def _clients() -> list[str]:
    """Every `docker` on the path, in its order."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = (Path(folder) / "docker" for folder in folders)
    return list(dict.fromkeys(str(path) for path in found if os.access(path, os.X_OK)))


def _builds(client: str) -> bool:
    """True if a client can use BuildKit: built in up to version 20.10, a plugin since 23."""
    with contextlib.suppress(CommandError):
        if "Docker version 20." in run_command(client, "--version"):
            return True
        return bool(run_command(client, "buildx", "version"))
    return False


def _install() -> None:
    if all(shutil.which(name) for name in ("dockerd", "debootstrap", "iptables")):
        return
    # With another runlevel, Debian does not start the engine with its own configuration.
    environment = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES)
    try:
        run_command("apt-get", "update", "--quiet", environment=environment)
        run_command(*install, environment=environment)
    except CommandError as error:
        raise NoEngineError(f"Debian's engine can't be installed: {error}") from error


@contextlib.contextmanager
def _started(daemon: str, client: str, folder: Path) -> Iterator[Engine]:
    """An engine of our own. Raises NoEngineError."""
    folder.mkdir(parents=True, exist_ok=True)
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    engine = Engine(client, environment={"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"})
    for driver in _STORAGE_DRIVERS:
        configuration = {
            "storage-driver": driver,
            # No more than what networks inside of networks carry.
            "mtu": 1400,
            "hosts": [f"unix://{socket}"],
            "data-root": str(folder / "data"),
            "exec-root": str(folder / "run"),
            "pidfile": str(folder / "dockerd.pid"),
        }
        (folder / "daemon.json").write_text(json.dumps(configuration))
        (folder / "dockerd.pid").unlink(missing_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(  # noqa: S603
                [daemon, "--config-file", folder / "daemon.json"],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            if _comes_up(engine, process):
                yield engine
                return
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    lines = log.read_text(errors="replace").splitlines()
    raise NoEngineError(f"Debian's engine does not start: {lines[-1] if lines else 'no reason'}")


def _comes_up(engine: Engine, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if engine.answers():
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _with_compose(engine: Engine, cache: Path) -> Engine:
    """The engine with Compose: the plugin, or one built once. Raises NoEngineError."""
    plugin = Engine(engine.client, (engine.client, "compose"), engine.environment)
    with contextlib.suppress(CommandError):
        plugin.run_compose("version", folder=Path.cwd())
        return plugin
    binary = cache / f"docker-compose-{COMPOSE_VERSION}"
    if not binary.exists():
        _build_compose(binary)
    return Engine(engine.client, (str(binary),), engine.environment)


def _build_compose(binary: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise NoEngineError("Docker Compose is not installed, and there is no Go to build it with")
    work = binary.with_name(f"{binary.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        found = run_command(go, "mod", "download", "-json", _COMPOSE_MODULE, folder=work)
        # `go install` refuses a module whose go.mod replaces or excludes others.
        downloaded = json.loads(found[found.index("{") :])["Dir"]
        shutil.copytree(downloaded, work / "source", copy_function=shutil.copy)
        for path in (work / "source", *(work / "source").rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        variable = f"github.com/docker/compose/v2/internal.Version={COMPOSE_VERSION}"
        options = ("-trimpath", "-ldflags", f"-s -w -X {variable}", "-o", str(work / "compose"))
        run_command(
            *(go, "build", *options, "./cmd"),
            folder=work / "source",
            seconds=_BUILD_SECONDS,
            environment={"CGO_ENABLED": "0"},
        )
        (work / "compose").replace(binary)
    except CommandError as error:
        raise NoEngineError(f"Docker Compose can't be built: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
