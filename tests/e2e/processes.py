"""Starts the real services as processes on free loopback ports, and waits until they are ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Service:
    """A running process and where it listens."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    admin: str = ""

    def output(self) -> str:
        return self.log.read_text()

    def stop(self, seconds: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextlib.contextmanager
def running(command: list[str], address: str, ready: Callable[[], bool]) -> Iterator[Service]:
    """Runs a Python module until the block ends."""
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log)
        service = Service(process, address, Path(log.name))
        try:
            wait_until(lambda: ready() or process.poll() is not None, f"start of {command[0]}")
            assert process.poll() is None, service.output()
            yield service
        finally:
            if process.poll() is None:
                service.stop()


@contextlib.contextmanager
def inference(
    *flags: str, listen: str | None = None, backend: str = "pytorch"
) -> Iterator[Service]:
    """The inference service with the demo model."""
    address = listen or f"127.0.0.1:{free_port()}"
    tls = "--tls-certificate" in flags
    # No backend is chosen by measuring: that takes a minute, and answers depend on it.
    model = ["--model", "demo", "--backend", backend, "--max-batch", "8"]
    command = ["inference", "--listen", address, *model, *flags]
    with running(command, address, lambda: tls or is_serving(address)) as service:
        if tls:
            wait_until(lambda: "listening on" in service.output(), "start of inference")
        yield service


@contextlib.contextmanager
def gateway(
    target: str, *flags: str, ready: bool = True, data_folder: Path | None = None
) -> Iterator[Service]:
    """The gateway; `ready` says whether to wait for inference too."""
    address = f"127.0.0.1:{free_port()}"
    admin = f"127.0.0.1:{free_port()}"
    command = ["gateway", "--listen", address, "--admin-listen", admin, "--inference", target]
    path = "readyz" if ready else "livez"
    if not ready:  # nor is anything to be asked of inference but what the test does
        command += ["--warm-up-seconds", "0"]
    with contextlib.ExitStack() as stack:
        folder = data_folder or stack.enter_context(tempfile.TemporaryDirectory())
        service = stack.enter_context(
            running(
                [*command, "--data-folder", str(folder), *flags],
                address,
                lambda: fetch(f"http://{address}/{path}")[0] == 200,
            )
        )
        service.admin = admin
        yield service


@contextlib.asynccontextmanager
async def off_loop(context: AbstractContextManager[Service]) -> AsyncIterator[Service]:
    """Starts and stops a service without blocking the event loop."""
    service = await asyncio.to_thread(context.__enter__)
    try:
        yield service
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def is_serving(address: str, service: str = "") -> bool:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = stub.Check(request, timeout=1)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def fetch(url: str) -> tuple[int, str]:
    """GETs a page; status 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def deny(admin: str, **hashes: str) -> None:
    """Adds an override through the admin port."""
    url = f"http://{admin}"
    async with httpx.AsyncClient(base_url=url, headers={"origin": url}) as client:
        entry = {"action": "deny", "why": "a test", **hashes}
        answer = await client.post("/api/v1/overrides", json=entry)
        assert answer.status_code in (200, 201), answer.text


def children(pid: int) -> dict[int, str]:
    """The command lines of a process's children, by process id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"\nPPid:\t{pid}\n" in (folder / "status").read_text():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode()
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    """The memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
