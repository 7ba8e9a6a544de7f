"""Our service beside LitServe and Triton: `make bench-peers`.

All serve the same ViT-B-32 with random weights: JPEG bytes in, similarities to the same concepts
out. One of them gets load at a time, in turns, while the others idle. A ratio is ours to the better
of the two, within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import answers
from benchmarks.serving.command import loaded, options, rounds, run
from benchmarks.serving.comparison import name
from benchmarks.serving.material import LARGE, ROOT, SMALL, model, model_flags
from benchmarks.serving.processes import Service, Worker, inference, running, worker
from benchmarks.serving.report import Report, Row, at_least
from tests.e2e.processes import fetch, free_port

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
LITSERVE, TRITON = "LitServe", "Triton"
SAME, AUTOMATIC = "ours, PyTorch bfloat16", "ours, automatic"
PEERS = (LITSERVE, TRITON)
GOALS = {SAME: 1.15, AUTOMATIC: 1.8}
LARGE_CONCURRENCY = 16
# Idle OpenMP threads that spin take the core from whoever decodes or answers. For the peers it is
# about the same: LitServe loses at c=1 what it gains at c=16.
QUIET_THREADS = {"OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Contender:
    """A system with the model, and how load is put on it."""

    name: str
    protocol: str
    service: Service
    load: Worker
    requests: str = ""  # the folder of ready requests, for Triton
    restless: bool = False  # takes a good part of a core while idle, which others would miss

    def measure(self, report: Report, kind: str, concurrency: int, seconds: float) -> None:
        """One sample."""
        with self.awake():
            command = {**self._command(kind, concurrency), "seconds": seconds}
            loaded(
                report, name(self.name, kind, concurrency), self.load, (self.service,), **command
            )

    def warm_up(self) -> None:
        """What happens once does not happen in a measurement."""
        self.load.ask(**self._command(SMALL, 16), seconds=1)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Runs the system for the block, if it is one that has to be kept still otherwise."""
        if self.restless:
            self.service.resume()
        try:
            yield
        finally:
            if self.restless:
                self.service.pause()

    def _command(self, kind: str, concurrency: int) -> dict[str, Any]:
        where = {"path": self.protocol, "target": self.service.address, "requests": self.requests}
        return {**where, "files": kind, "concurrency": concurrency}


def start(stack: contextlib.ExitStack, passive: bool) -> list[Contender]:
    """Starts everything, and makes sure that all say the same."""
    grpc_load = stack.enter_context(worker("gRPC client", "benchmarks.serving.load", "grpc"))
    http_load = stack.enter_context(worker("HTTP client", "benchmarks.serving.load", "http"))
    served = model()
    environment = QUIET_THREADS if passive else {}
    lit = stack.enter_context(_litserve(served, environment))
    requests = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    tri = stack.enter_context(_triton(served, requests, environment))
    flags = ("--backend", "pytorch", "--precision", "bfloat16")
    same = stack.enter_context(inference(*model_flags(), *flags))
    automatic = stack.enter_context(inference(*model_flags()))
    expected = answers.ours(same.address)
    answers.check(AUTOMATIC, answers.ours(automatic.address), expected)
    answers.check(LITSERVE, answers.litserve(lit.address), expected)
    answers.check(TRITON, answers.triton(tri.address, requests), expected)
    return [
        Contender(LITSERVE, LITSERVE, lit, http_load, restless=True),
        Contender(TRITON, TRITON, tri, grpc_load, str(requests)),
        Contender(SAME, "ScoreImage", same, grpc_load),
        Contender(AUTOMATIC, "ScoreImage", automatic, grpc_load),
    ]


def _litserve(
    served: str, environment: Mapping[str, str]
) -> contextlib.AbstractContextManager[Service]:
    port = free_port()
    command = [str(PYTHON), "-m", "benchmarks.peers.litserve_server", served, str(port)]
    return running(
        LITSERVE,
        command,
        f"127.0.0.1:{port}",
        lambda it: fetch(f"http://{it}/health")[0] == 200,
        environment,
    )


def _triton(
    served: str, requests: Path, environment: Mapping[str, str]
) -> contextlib.AbstractContextManager[Service]:
    grpc_port, http_port = free_port(), free_port()
    command = [str(PYTHON), "-m", "benchmarks.peers.triton_server", served]
    command += [str(grpc_port), str(http_port), str(requests)]
    ready = f"http://127.0.0.1:{http_port}/v2/models/clip/ready"
    return running(
        TRITON,
        command,
        f"127.0.0.1:{grpc_port}",
        lambda _: fetch(ready)[0] == 200,
        # Triton's Python stub looks for libpython by itself.
        {**environment, "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    )


def idle(report: Report, contenders: list[Contender], seconds: float) -> None:
    """How much of a core each takes while nobody asks for anything."""
    before = [one.service.cpu_seconds() for one in contenders]
    time.sleep(seconds)
    for one, start in zip(contenders, before, strict=True):
        share = (one.service.cpu_seconds() - start) / seconds
        report.note(f"{one.name} takes of a core while idle", f"{share:.1%}")
        if one.restless:
            one.service.pause()


def rows(report: Report, concurrencies: list[int]) -> list[Row]:
    """Ours against the better of the two, round by round."""
    measured = [(SMALL, concurrency) for concurrency in concurrencies]
    found = []
    for ours, goal in GOALS.items():
        for kind, concurrency in (*measured, (LARGE, LARGE_CONCURRENCY)):
            lit, tri, mine = (
                report.values(name(one, kind, concurrency), "images_per_second")
                for one in (*PEERS, ours)
            )
            ratios = [m / max(a, b) for m, a, b in zip(mine, lit, tri, strict=True)]
            row = f"{ours}, against the better peer, {kind}, c={concurrency}"
            found.append(at_least(row, ratios, goal if kind == SMALL else None))
    return found


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    report = Report("peers", vars(arguments))
    with contextlib.ExitStack() as stack:
        contenders = start(stack, arguments.passive)
        for one in contenders:
            one.warm_up()  # all are awake yet
        idle(report, contenders, 3)
        for _ in rounds(arguments.rounds):
            for concurrency in arguments.concurrency:
                for one in contenders:
                    one.measure(report, SMALL, concurrency, arguments.seconds)
            for one in contenders:
                one.measure(report, LARGE, LARGE_CONCURRENCY, arguments.seconds)
    return report.finish(rows(report, arguments.concurrency))


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument(
        "--passive", action="store_true", help="the peers' idle OpenMP threads sleep, not spin"
    )
    chosen = parser.parse_args()
    sys.exit(run(lambda: main(chosen)))
