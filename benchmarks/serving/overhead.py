"""What the services themselves cost: `make bench-overhead`.

The services with an encoder that answers at once, beside servers that only count the bytes. What is
compared is measured one right after the other, in every round; a ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass

from benchmarks.serving.command import loaded, options, rounds, run
from benchmarks.serving.material import SMALL, policy
from benchmarks.serving.processes import (
    Service,
    Worker,
    gateway,
    inference,
    listens,
    running,
    worker,
)
from benchmarks.serving.report import Report, Row, at_least
from tests.e2e.processes import free_port

GOAL = 0.7
MODEL = "null/null"


@dataclass(frozen=True)
class Path:
    """One way to put load on something: how, by which worker, where, and who works for it."""

    name: str
    protocol: str
    load: Worker
    services: tuple[Service, ...]  # the one that is called comes first

    def measure(self, report: Report, concurrency: int, seconds: float) -> None:
        """One sample."""
        loaded(
            report,
            f"{self.name}, c={concurrency}",
            self.load,
            self.services,
            path=self.protocol,
            target=self.services[0].address,
            files=SMALL,
            concurrency=concurrency,
            seconds=seconds,
        )


def start(stack: contextlib.ExitStack) -> list[Path]:
    """Starts everything; each path after the one that it is compared with."""
    grpc_load = stack.enter_context(worker("gRPC client", "benchmarks.serving.load", "grpc"))
    http_load = stack.enter_context(worker("HTTP client", "benchmarks.serving.load", "http"))
    counter = _floor(stack, "counter", "grpc")
    forwarder = _floor(stack, "forwarder", "http", counter.address)
    module = "benchmarks.serving.null_inference"
    dispatch, decode = (
        stack.enter_context(inference("--model", MODEL, module=(module, mode)))
        for mode in ("dispatch", "decode")
    )
    rules = policy(MODEL, "null-policy")
    to_dispatch, to_decode = (
        stack.enter_context(gateway(service.address, rules)) for service in (dispatch, decode)
    )
    return [
        Path("bare unary", "bare unary", grpc_load, (counter,)),
        Path("bare gRPC", "bare gRPC", grpc_load, (counter,)),
        Path("ScoreImage", "ScoreImage", grpc_load, (dispatch,)),
        Path("ScoreImage with decoding", "ScoreImage", grpc_load, (decode,)),
        Path("bare HTTP", "bare HTTP", http_load, (forwarder, counter)),
        Path("HTTP", "HTTP", http_load, (to_dispatch, dispatch)),
        Path("HTTP with decoding", "HTTP", http_load, (to_decode, decode)),
    ]


def _floor(stack: contextlib.ExitStack, name: str, *arguments: str) -> Service:
    address = f"127.0.0.1:{free_port()}"
    kind, *rest = arguments
    command = [sys.executable, "-m", "benchmarks.serving.floor", kind, address, *rest]
    return stack.enter_context(running(name, command, address, listens))


def rows(report: Report, concurrencies: list[int]) -> list[Row]:
    """Each path against the bare server of its protocol."""
    compared = (("ScoreImage", "bare gRPC"), ("HTTP", "bare HTTP"))
    found = []
    for ours, bare in compared:
        for suffix, goal in (("", GOAL), (" with decoding", None)):
            for concurrency in concurrencies:
                mine = report.values(f"{ours}{suffix}, c={concurrency}", "images_per_second")
                floor = report.values(f"{bare}, c={concurrency}", "images_per_second")
                ratios = [a / b for a, b in zip(mine, floor, strict=True)]
                name = f"null encoder: {ours}{suffix} against {bare}, c={concurrency}"
                found.append(at_least(name, ratios, goal))
    return found


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    report = Report("overhead", vars(arguments))
    with contextlib.ExitStack() as stack:
        paths = start(stack)
        for path in paths:
            path.load.ask(
                path=path.protocol,
                target=path.services[0].address,
                files=SMALL,
                concurrency=16,
                seconds=1,
            )
        for _ in rounds(arguments.rounds):
            for concurrency in arguments.concurrency:
                for path in paths:
                    path.measure(report, concurrency, arguments.seconds)
    return report.finish(rows(report, arguments.concurrency))


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    chosen = parser.parse_args()
    sys.exit(run(lambda: main(chosen)))
