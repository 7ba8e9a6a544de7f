"""Real processes of both services, each on an address of its own, and what befalls them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.rehearsal.certificates import TlsFolder
from benchmarks.serving.processes import Service, running
from tests.e2e.processes import fetch, free_port

# One forward pass at a time on one thread: what several replicas on two cores would do anyway.
INFERENCE_FLAGS = (
    *("--backend", "pytorch", "--threads", "1", "--parallel-batches", "1"),
    *("--decode-workers", "1", "--max-batch", "8", "--log-level", "warning"),
)
SLOW_PERIOD = 0.04


@dataclass
class Process:
    """A process of the fleet. `ended` says whether somebody has ended it already."""

    name: str
    host: str
    service: Service
    stack: contextlib.ExitStack
    ended: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.service.process.pid

    def kill(self) -> None:
        """SIGKILL to the process itself; its children have to notice by themselves."""
        self.service.process.kill()
        self.service.process.wait()
        self.ended = True

    def stop(self) -> None:
        """SIGTERM, and waits for the end."""
        self.ended = True
        self.stack.close()

    def freeze(self) -> None:
        """SIGSTOP to the process and its children."""
        self.service.pause()

    def thaw(self) -> None:
        """SIGCONT."""
        self.service.resume()

    @contextlib.contextmanager
    def slowed(self, factor: float) -> Iterator[None]:
        """Lets it run one part in `factor` of the time only, while the block runs."""
        over = threading.Event()

        def alternate() -> None:
            while not over.wait(SLOW_PERIOD / factor):
                self.freeze()
                over.wait(SLOW_PERIOD * (1 - 1 / factor))
                self.thaw()

        thread = threading.Thread(target=alternate)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@dataclass(frozen=True)
class GatewayPlace:
    """Where a gateway listens and keeps its ledger, whichever process it is at the time."""

    name: str
    host: str
    port: int
    admin_port: int
    folder: Path

    @property
    def address(self) -> str:
        """For uploads."""
        return f"{self.host}:{self.port}"


@dataclass
class Fleet:
    """Starts processes; all of them end with it. Its methods block: call them in a thread."""

    model: str = "demo"
    policy: str = "demo"
    port: int = field(default_factory=free_port)
    replicas: list[Process] = field(default_factory=list)
    gateways: list[Process] = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _hosts: int = 0

    def __enter__(self) -> Fleet:
        self.folder = Path(tempfile.mkdtemp(prefix="rehearsal-"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.gateways, *self.replicas):
            self.stack.callback(process.stack.close)
        self.stack.close()

    def new_host(self) -> str:
        """An address of the loopback network that no replica has had."""
        self._hosts += 1
        return f"127.0.1.{self._hosts}"

    def start_replica(
        self,
        *flags: str,
        host: str | None = None,
        tls: TlsFolder | None = None,
        core: int | None = None,
    ) -> Process:
        """An inference service that is ready. `core`: the only one that it may use."""
        host = host or self.new_host()
        address = f"{host}:{self.port}"
        command = [sys.executable, "-m", "inference", "--listen", address, "--model", self.model]
        command += INFERENCE_FLAGS
        if tls is not None:
            command += ["--tls-certificate", str(tls.certificate), "--tls-key", str(tls.key)]
            command += ["--tls-client-ca", str(tls.authorities)]
        command = _pinned([*command, *flags], core)
        replica = self._start(host, "inference", command, address, lambda at: is_serving(at, tls))
        self.replicas.append(replica)
        return replica

    def gateway_place(self, number: int) -> GatewayPlace:
        """The place of a gateway, numbered from 1."""
        name = f"gateway {number}"
        return GatewayPlace(name, f"127.0.2.{number}", free_port(), free_port(), self.folder / name)

    def start_gateway(self, place: GatewayPlace, target: str, *flags: str) -> Process:
        """A gateway that is ready to take uploads."""
        command = [sys.executable, "-m", "gateway", "--listen", place.address]
        command += ["--admin-listen", f"{place.host}:{place.admin_port}", "--inference", target]
        command += ["--policy", self.policy, "--data-folder", str(place.folder)]
        command += ["--log-level", "error", *flags]
        gateway = self._start(
            place.host,
            place.name,
            command,
            place.address,
            lambda at: fetch(f"http://{at}/readyz")[0] == 200,
        )
        self.gateways.append(gateway)
        return gateway

    def living(self) -> dict[str, int]:
        """Process ids of the replicas that nobody has ended, by host."""
        return {replica.host: replica.pid for replica in self.replicas if not replica.ended}

    def _start(
        self,
        host: str,
        name: str,
        command: Sequence[str],
        address: str,
        ready: Callable[[str], bool],
    ) -> Process:
        stack = contextlib.ExitStack()
        service = stack.enter_context(running(name, command, address, ready))
        return Process(name, host, service, stack)


def is_serving(address: str, tls: TlsFolder | None = None) -> bool:
    """Whether the health service says so; with `tls`, asked with those files."""
    with _channel(address, tls) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(address: str, tls: TlsFolder | None) -> grpc.Channel:
    # Or a connection of an earlier question would be used again, with its old certificates.
    options = (("grpc.use_local_subchannel_pool", 1),)
    if tls is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(
        tls.authorities.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    return grpc.secure_channel(address, credentials, options)


def _pinned(command: list[str], core: int | None) -> list[str]:
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


def cores() -> list[int]:
    """The processor cores that we may use."""
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def leaving(core: int | None) -> Iterator[None]:
    """Keeps this process, and those that it starts meanwhile, off a core."""
    before = cores()
    _confine([one for one in before if one != core])
    try:
        yield
    finally:
        _confine(before)


def _confine(allowed: Sequence[int]) -> None:
    """For each thread: one that is started later has the cores of the thread that starts it."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), allowed)
