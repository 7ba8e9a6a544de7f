"""What the ledger costs, and what repeats save: `make bench-ledger`.

Gateways without a ledger, with SQLite and with PostgreSQL, in front of an encoder that answers at
once. What is compared is measured one right after the other, in every round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.serving.command import loaded, options, rounds, run
from benchmarks.serving.material import SMALL, policy
from benchmarks.serving.overhead import MODEL
from benchmarks.serving.processes import (
    BenchmarkError,
    Service,
    Worker,
    gateway,
    inference,
    worker,
)
from benchmarks.serving.report import Report, Row, at_least, at_most
from gateway.ledger.ledger import Ledger, Stored
from gateway.metrics import Metrics
from imagesafety.scores import View
from tests.gateway.postgres import Postgres, binaries, running_postgres
from tests.gateway.records import record

ADDED_MS = 2.0
REPEATS_A_SECOND = 1000.0
DECISIONS_A_SECOND = 500.0
RATE = 100.0  # decisions a second, where latency is compared
VIEWS = (View(0, 0.0, (0, 0, 256, 256), (0.2,) * 30),)  # of a policy with 30 concepts
OFF, SQLITE, POSTGRESQL, REPEATS = "no ledger", "SQLite", "PostgreSQL", "repeats"


def start(stack: contextlib.ExitStack, server: Postgres | None) -> dict[str, Service]:
    """Starts the gateways; all before one inference service."""
    module = ("benchmarks.serving.null_inference", "dispatch")
    target = stack.enter_context(inference("--model", MODEL, module=module)).address
    rules = policy(MODEL, "null-policy")
    flags = {
        OFF: ("--database", "off"),
        SQLITE: (),
        POSTGRESQL: ("--database", server.new_database()) if server is not None else None,
        REPEATS: ("--repeats", "true"),
    }
    return {
        name: stack.enter_context(gateway(target, rules, *chosen))
        for name, chosen in flags.items()
        if chosen is not None
    }


def measure(
    report: Report, load: Worker, gateways: dict[str, Service], seconds: float, concurrency: int
) -> None:
    """One round."""
    for name, service in gateways.items():
        path = "HTTP repeats" if name == REPEATS else "HTTP"
        common = {"path": path, "target": service.address, "files": SMALL, "seconds": seconds}
        loaded(report, f"{name}, c=1", load, (service,), concurrency=1, **common)
        many = f"{name}, c={concurrency}"
        loaded(report, many, load, (service,), concurrency=concurrency, **common)
        if name != REPEATS:
            steady = f"{name}, {RATE:g} a second"
            loaded(report, steady, load, (service,), rate=RATE, seed=1, **common)


async def rows_a_second(url: str, seconds: float, concurrency: int) -> dict[str, float]:
    """The ledger alone: how fast it takes rows, and the processor milliseconds of each."""
    counted = 0
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(url, Path(folder), Metrics(), retention_days=90)
        await ledger.start()
        begin, cpu = time.perf_counter(), time.process_time()

        async def record_some() -> None:
            nonlocal counted
            while time.perf_counter() < begin + seconds:
                row = record(
                    id=secrets.token_hex(16),
                    at=time.time_ns() // 1000,
                    sha256=secrets.token_bytes(32),
                    views=VIEWS,
                )
                if await ledger.record(row, until=time.monotonic() + 8) is not Stored.DATABASE:
                    raise BenchmarkError("the database did not take a row")
                counted += 1

        await asyncio.gather(*(record_some() for _ in range(concurrency)))
        took, cpu = time.perf_counter() - begin, time.process_time() - cpu
        await ledger.close()
    return {"rows_per_second": counted / took, "cpu ms": cpu / counted * 1000}


def measure_alone(report: Report, url: str, name: str, seconds: float, concurrency: int) -> None:
    """One round of the ledger alone, in this process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(rows_a_second(url, seconds, concurrency))
    report.add(f"{name} alone, c={concurrency}", figures)


def rows(report: Report, databases: list[str], concurrency: int) -> Iterator[Row]:
    """Each database against no ledger, in the same round."""
    for name in databases:
        for load in ("c=1", f"{RATE:g} a second"):
            for figure, goal in (("p50_ms", ADDED_MS), ("p99_ms", None)):
                mine = report.values(f"{name}, {load}", figure)
                bare = report.values(f"{OFF}, {load}", figure)
                added = [a - b for a, b in zip(mine, bare, strict=True)]
                what = f"{name}: added {figure[:3]} in ms, {load}"
                yield at_most(what, added, goal) if goal else at_least(what, added)
        rate = report.values(f"{name} alone, c={concurrency}", "rows_per_second")
        yield at_least(f"{name} alone: decisions a second", rate, DECISIONS_A_SECOND)
        through = report.values(f"{name}, c={concurrency}", "images_per_second")
        bare = report.values(f"{OFF}, c={concurrency}", "images_per_second")
        ratios = [a / b for a, b in zip(through, bare, strict=True)]
        yield at_least(f"{name}: gateway against no ledger, c={concurrency}", ratios)
    repeats = f"{REPEATS}, c={concurrency}"
    yield at_least("repeats a second", report.values(repeats, "images_per_second"))
    cost = report.values(repeats, "gateway cpu ms")
    yield at_least(
        "repeats a second on one core of the gateway",
        [1000 / milliseconds for milliseconds in cost],
        REPEATS_A_SECOND,
    )


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    report = Report("ledger", vars(arguments))
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(worker("HTTP client", "benchmarks.serving.load", "http"))
        # With fsync, as a server that keeps its promises.
        server = stack.enter_context(running_postgres(durable=True)) if binaries() else None
        gateways = start(stack, server)
        for service in gateways.values():
            load.ask(
                path="HTTP, first time or repeat",
                target=service.address,
                files=SMALL,
                concurrency=8,
                seconds=2,
            )
        databases = {
            SQLITE: f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/ledger.db"
        }
        if server is not None:
            databases[POSTGRESQL] = server.new_database()
        for _ in rounds(arguments.rounds):
            measure(report, load, gateways, arguments.seconds, arguments.concurrency)
            for name, url in databases.items():
                measure_alone(report, url, name, arguments.seconds, arguments.concurrency)
    return report.finish(list(rows(report, list(databases), arguments.concurrency)))


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--concurrency", type=int, default=16)
    chosen = parser.parse_args()
    sys.exit(run(lambda: main(chosen)))
