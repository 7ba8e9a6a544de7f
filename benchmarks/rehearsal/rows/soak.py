"""A long steady load, with clients that hang up: whether anything grows."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.rehearsal.memory_trend import trend
from benchmarks.rehearsal.process_tree import ProcessFigures, figures, tree
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.outcome import (
    history_lines,
    latency_lines,
    load_line,
    unscanned_line,
)
from benchmarks.rehearsal.stage import Plan, Stage, stage
from benchmarks.rehearsal.table import Line, told

ROW = "soak"
PLAN = Plan(replicas=2, gateways=2, share=0.4)
SECONDS = 20 * 60.0
HANG_UPS = 0.05
WARM_UP = 0.25  # of the time, in which caches fill
SAMPLES = 240
ALLOWED_MB = 10.0  # an hour
MORE_DESCRIPTORS, MORE_THREADS = 8.0, 4.0  # between the first and the last third of the samples
_MB = 1e6


@dataclass
class Samples:
    """What one process had, sample by sample."""

    name: str
    times: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)

    def add(self, at: float, process: ProcessFigures) -> None:
        """One more."""
        self.times.append(at)
        self.resident.append(process.resident_bytes / _MB)
        self.descriptors.append(process.descriptors)
        self.threads.append(process.threads)


async def soak(options: Options) -> list[Line]:
    """The row."""
    seconds = options.of(SECONDS)
    async with stage(PLAN) as it:
        async with it.load(hang_ups=HANG_UPS):
            await asyncio.sleep(WARM_UP * seconds)
            samples = await _sampled(it, (1 - WARM_UP) * seconds)
        verdict = it.judged()
        return [
            load_line(ROW, it),
            told(ROW, "clients that hung up", str(verdict.failed.get("hang-up", 0))),
            *history_lines(ROW, verdict),
            unscanned_line(ROW, it, verdict),
            *latency_lines(ROW, it),
            told(ROW, "sampled", f"{(1 - WARM_UP) * seconds:.0f} s after {WARM_UP:.0%} warm-up"),
            *(line for each in samples for line in _lines(each, whole=seconds >= SECONDS)),
        ]


async def _sampled(it: Stage, seconds: float) -> list[Samples]:
    """The figures of every process of the services and of all their children."""
    found: dict[int, Samples] = {}
    every, end = seconds / SAMPLES, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        processes = await asyncio.to_thread(figures, descriptors=True)
        for root in (*it.fleet.gateways, *it.fleet.replicas):
            for process in tree(processes, root.pid):
                child = "" if process.pid == root.pid else f", child {process.pid} {process.name}"
                name = f"{root.name} at {root.host}{child}"
                found.setdefault(process.pid, Samples(name)).add(now, process)
        await asyncio.sleep(max(now + every - time.monotonic(), 0))
    return list(found.values())


def _lines(samples: Samples, *, whole: bool) -> Iterator[Line]:
    """A short soak may be too short to tell; one of full length has to tell."""
    if len(samples.times) < 6:
        yield told(ROW, f"{samples.name}", "gone before it could be measured")
        return
    slope = trend(samples.times, samples.resident)
    resident = statistics.median(samples.resident)
    growth = f"{slope.per_hour:+.1f} ± {slope.error:.1f} MB/h of {resident:.0f} MB"
    flat = slope.is_flat(ALLOWED_MB)
    if flat is None:
        flat = False if whole else None
        growth += ", unclear" if whole else ", too short to tell"
    required = f"≤ {ALLOWED_MB:g} MB/h + 2 errors"
    yield Line(ROW, f"{samples.name}: memory", required, growth, flat)
    for what, values, more in (
        ("descriptors", samples.descriptors, MORE_DESCRIPTORS),
        ("threads", samples.threads, MORE_THREADS),
    ):
        third = len(values) // 3
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        grown = last - first
        measured = f"{first:.0f}, then {last:.0f}"
        yield Line(ROW, f"{samples.name}: {what}", f"≤ {more:g} more", measured, grown <= more)
