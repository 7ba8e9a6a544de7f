"""What the benchmark commands have in common: options, rounds, and an orderly end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from benchmarks.serving.processes import BenchmarkError, Service, Worker
from benchmarks.serving.report import Figures, Report


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    return parser


def run(command: Callable[[], int]) -> int:
    """Runs a command; whatever ends it, its processes end too."""
    # As an exception, so that every process is stopped on the way out.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return command()
    except BenchmarkError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def loaded(
    report: Report,
    what: str,
    load: Worker,
    services: Sequence[Service],
    **command: object,
) -> Figures:
    """One measurement under load, with the processor milliseconds a call of each service."""
    before = [service.cpu_seconds() for service in services]
    figures = load.ask(**command)
    after = [service.cpu_seconds() for service in services]
    calls = figures["calls"]
    for service, start, end in zip(services, before, after, strict=True):
        service.check()
        figures[f"{service.name} cpu ms"] = (end - start) / calls * 1000
    return report.add(what, figures)


def rounds(count: int) -> Iterator[int]:
    """Round after round; what is compared is measured in each."""
    for number in range(1, count + 1):
        print(f"\nround {number} of {count}", flush=True)
        yield number
