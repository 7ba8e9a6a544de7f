"""The services against the bare model that they serve: `make bench`.

ViT-B-32 with random weights. Every round measures the bare encoder with each backend, then the
service over gRPC and the pair over HTTP with small and with large JPEGs, each measurement between
two of the bare encoder. Ratios are taken between such neighbours, and their medians are held
against the goals. Clients share the cores with what they measure.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence

from benchmarks.serving import memory
from benchmarks.serving.command import options, rounds, run
from benchmarks.serving.comparison import (
    DECODING,
    ENCODER,
    HTTP,
    PATHS,
    SCORE_IMAGE,
    SIDE_BY_SIDE,
    SIDE_BY_SIDE_DECODING,
    Pair,
    compare,
    name,
)
from benchmarks.serving.material import LARGE, SMALL, model, model_flags, policy
from benchmarks.serving.plot import draw
from benchmarks.serving.processes import (
    BenchmarkError,
    Service,
    Worker,
    gateway,
    inference,
    worker,
)
from benchmarks.serving.report import Report, Row, at_least, at_most

REFERENCES = (ENCODER, SIDE_BY_SIDE, DECODING, SIDE_BY_SIDE_DECODING)
BARE = "benchmarks.serving.bare"
BACKENDS = (
    "pytorch float32",
    "pytorch bfloat16",
    "compiled bfloat16",
    "openvino bfloat16",
    "openvino int8",
    "onnxruntime int8",
)


def start(stack: contextlib.ExitStack, report: Report, arguments: argparse.Namespace) -> Pair:
    """Starts the pair, its clients, and the bare model beside it."""
    flags = _flags(arguments)
    bare = stack.enter_context(worker("bare model", BARE, *flags))
    report.note("backend", bare.ask()["backend"])
    rates = {
        batch: bare.ask(forward=batch, seconds=arguments.seconds)["images_per_second"]
        for batch in arguments.batches
    }
    best = max(rates, key=lambda batch: rates[batch])
    report.note("best batch of the bare encoder", best)
    service = stack.enter_context(inference(*flags))
    largest = _max_batch(service)
    report.note("largest batch of the service", largest)
    rules = policy(model(), "policy")
    # A loaded machine would run into the budget of a real upload, and measure something else.
    front = stack.enter_context(gateway(service.address, rules, "--time-budget", "60"))
    grpc_load, http_load = (
        stack.enter_context(worker(f"{kind} client", "benchmarks.serving.load", kind))
        for kind in ("grpc", "http")
    )
    pair = Pair(report, bare, best, largest, grpc_load, http_load, service, front)
    for path, load, target in (
        (SCORE_IMAGE, grpc_load, service.address),
        (HTTP, http_load, front.address),
    ):
        load.ask(path=path, target=target, files=SMALL, concurrency=8, seconds=1)
    return pair


def _flags(arguments: argparse.Namespace) -> list[str]:
    """The settings of the service."""
    wanted = {"--backend": arguments.backend, "--precision": arguments.precision}
    return [*model_flags(), *(part for choice in wanted.items() for part in choice)]


def _max_batch(service: Service) -> int:
    found = re.search(r"batches of at most (\d+)", service.log.read_text())
    if found is None:
        raise BenchmarkError("the service does not say how large its batches are")
    return int(found[1])


def start_backends(
    stack: contextlib.ExitStack, report: Report, backends: Sequence[str]
) -> dict[str, Worker]:
    """A process with the bare encoder for each backend that this machine has."""
    found = {}
    for backend in backends:
        kind, precision = backend.split()
        flags = (*model_flags(), "--backend", kind, "--precision", precision)
        bare = stack.enter_context(worker(f"bare {backend}", BARE, *flags))
        try:
            bare.ask()
        except BenchmarkError as error:
            report.note(f"without {backend}", str(error).splitlines()[-1])
        else:
            found[backend] = bare
    return found


def measure_backends(
    report: Report, backends: dict[str, Worker], batches: Sequence[int], seconds: float
) -> None:
    """The bare encoders, in turns."""
    for batch in batches:
        for backend, bare in backends.items():
            report.add(f"bare {backend}, batch {batch}", bare.ask(forward=batch, seconds=seconds))


def rows(report: Report, concurrencies: Sequence[int]) -> list[Row]:
    """What is held against the goals; then the same for all of it, without goals."""

    def ratios(path: str, kind: str, concurrency: int, figure: str) -> list[float]:
        return report.values(f"{name(path, kind, concurrency)} / bare", figure)

    most, least = max(concurrencies), min(concurrencies)
    held = [
        at_least(f"{what}, saturated, against {against}", ratios(path, kind, most, against), goal)
        for what, path, kind, goal, references in (
            ("gRPC, 10 kB", SCORE_IMAGE, SMALL, 0.95, (ENCODER, SIDE_BY_SIDE)),
            ("HTTP, 10 kB", HTTP, SMALL, 0.90, (ENCODER, SIDE_BY_SIDE)),
            ("gRPC, 220 kB", SCORE_IMAGE, LARGE, 0.95, (DECODING, SIDE_BY_SIDE_DECODING)),
        )
        for against in references
    ]
    held += [
        at_most(
            f"ms added to bare p50, gRPC, c={least}",
            ratios(SCORE_IMAGE, SMALL, least, "added_ms"),
            3,
        ),
        at_most(
            f"ms added to bare p50, HTTP, c={least}", ratios(HTTP, SMALL, least, "added_ms"), 5
        ),
        at_most(
            "p99 at 80 % of capacity (Poisson), in batch times",
            report.values("Poisson p99 / batch time", "ratio"),
            3,
        ),
    ]
    others = [
        at_least(f"{name(path, kind, concurrency)}, against {against}", values)
        for kind in (SMALL, LARGE)
        for path in PATHS
        for concurrency in concurrencies
        for against in REFERENCES
        if (values := ratios(path, kind, concurrency, against))
    ]
    return held + others


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    report = Report("serving", vars(arguments))
    with contextlib.ExitStack() as stack:
        # The automatic choice of a backend is made first, while nothing else runs.
        pair = start(stack, report, arguments)
        backends = start_backends(stack, report, arguments.backends)
        for _ in rounds(arguments.rounds):
            measure_backends(report, backends, arguments.batches, arguments.seconds / 2)
            compare(pair, arguments.concurrency, arguments.seconds, arguments.poisson_seconds)
        grpc_load = pair.grpc_load
        held = rows(report, arguments.concurrency)
        held.insert(9, memory.measure(report, _flags(arguments), grpc_load, 1))
    draw(report, arguments.concurrency, report.path(".png"))
    return report.finish(held)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--backend", default="auto", help="what the services run on")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backends", nargs="*", default=BACKENDS, help="bare ones, to compare")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--poisson-seconds", type=float, default=15.0)
    chosen = parser.parse_args()
    sys.exit(run(lambda: main(chosen)))
