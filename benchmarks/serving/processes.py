"""The processes of a benchmark: services that get load, and workers that do as they are told."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.material import ROOT
from tests.e2e.processes import children, fetch, free_port, is_serving

START_SECONDS = 900.0  # the first start of an automatic backend measures and exports
ANSWER_SECONDS = 900.0
STOP_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A measurement that could not be made: a process died, or an answer was wrong."""


@dataclass(frozen=True)
class Service:
    """A running service, where it listens, and what it has written."""

    name: str
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def check(self) -> None:
        """Raises BenchmarkError if it is gone."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BenchmarkError(f"{self.name} ended with {self.process.returncode}:\n{tail}")

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        return [self.process.pid, *children(self.process.pid)]

    def pause(self) -> None:
        """Stops the processes where they are, so that they take nothing from others."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets them go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Processor time so far, of the process and its living children."""
        return sum(_cpu_seconds(pid) for pid in self.pids)


class Worker:
    """A process that answers one JSON object a line with another."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command and waits for the answer. Raises BenchmarkError."""
        process = self._service.process
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError(f"{self._service.name} is no worker")
        self._service.check()
        process.stdin.write(json.dumps(command).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            self._service.check()
            raise BenchmarkError(f"no answer to {command}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{command}: {answer['error']}")
        return answer


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    address: str = "",
    ready: Callable[[str], bool] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Runs a program until the block ends, whatever ends it."""
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        pipe = None if ready else subprocess.PIPE
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or log,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # so that Ctrl-C is ours, and nothing of it stays behind
        )
        service = Service(name, process, address, Path(log.name))
        try:
            if ready is not None:
                _wait(service, ready)
            yield service
        finally:
            _stop(process)


@contextlib.contextmanager
def worker(name: str, *module: str) -> Iterator[Worker]:
    """A worker of ours."""
    with running(name, [sys.executable, "-m", *module]) as service:
        yield Worker(service)


@contextlib.contextmanager
def inference(*flags: str, module: Sequence[str] = ("inference",)) -> Iterator[Service]:
    """The inference service, or a module in its place that takes the same flags."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", *module, "--listen", address, *flags]
    with running("inference", command, address, is_serving) as service:
        yield service


@contextlib.contextmanager
def gateway(target: str, policy: Path, *flags: str) -> Iterator[Service]:
    """The gateway in front of an inference service."""
    address, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [sys.executable, "-m", "gateway", "--listen", address, "--admin-listen", admin]
    command += ["--inference", target, "--policy", str(policy), *flags]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--data-folder", folder]
        if "--repeats" not in flags:
            # The load has fewer pictures than uploads: as repeats they would cost nothing.
            command += ["--repeats", "false"]
        with running("gateway", command, address, _is_ready) as service:
            yield service


def listens(address: str) -> bool:
    """Whether anybody does there."""
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _is_ready(address: str) -> bool:
    return fetch(f"http://{address}/readyz")[0] == 200


def _wait(service: Service, ready: Callable[[str], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready(service.address):
        service.check()
        if time.monotonic() > end:
            raise BenchmarkError(f"{service.name} is not ready after {START_SECONDS:g} s")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks the process to end, and then ends whatever is left of its session."""
    with contextlib.suppress(OSError):
        process.terminate()
        os.killpg(process.pid, signal.SIGCONT)  # what is paused would not hear of it
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
