"""Three times the load that the replicas can bear."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from benchmarks.rehearsal import arrivals
from benchmarks.rehearsal.checker import UNSCANNED
from benchmarks.rehearsal.fleet import Process, cores
from benchmarks.rehearsal.heavy_model import heavy_model
from benchmarks.rehearsal.history import Answered, spans
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.outcome import history_lines, latency_lines, load_line
from benchmarks.rehearsal.stage import BUDGET_SECONDS, Plan, Stage, stage
from benchmarks.rehearsal.table import Line, at_least, at_most, told
from benchmarks.serving.memory import Peak, memory_of, peak_of

ROW = "overload"
TIMES = 3.0
CONCURRENCY = 24  # of two replicas with batches of 8: half as many again as run
GOODPUT = 0.9
# Of each process over what it had before: inference may hold max_bytes_in_flight and the pixels of
# 4 × max_queue views, 800 MB together, and gets far smaller files here.
GROWTH_MB = {"inference": 300.0, "gateway": 100.0}
_MB = 1e6


async def overload(options: Options) -> list[Line]:
    """The row: capacity, then three times that, then capacity again.

    What replicas can bear is asked for. So they have a core of their own, as pods have processors:
    three times the uploads would else leave them less of it than they had for the capacity.
    """
    seconds = options.of(40.0)
    core = cores()[0] if len(cores()) > 1 else None
    heavy = await asyncio.to_thread(heavy_model)
    plan = Plan(
        replicas=2,
        share=TIMES,
        model=heavy.model,
        policy=heavy.policy,
        measure_seconds=seconds / 4,
        concurrency=CONCURRENCY,
        replica_core=core,
    )
    async with stage(plan) as it:
        watched = [*it.fleet.replicas, *it.fleet.gateways]
        before = [await asyncio.to_thread(_memory, process) for process in watched]
        async with it.load():
            warm = min(BUDGET_SECONDS, seconds / 4)
            peaks = await _watched(watched, warm + seconds)
            over = time.monotonic()
        goodput = _goodput(it, over - seconds, over)
        again = await arrivals.capacity(it.client, CONCURRENCY, plan.measure_seconds)
        verdict = it.judged()
        capacity = (it.capacity + again) / 2
        wrong = sum(row.cause in UNSCANNED and row.decision != "accept" for row in it.rows)
        return [
            replace(load_line(ROW, it), what=f"load, {TIMES:g} times the capacity"),
            *history_lines(ROW, verdict),
            *latency_lines(ROW, it),
            _longest(it),
            told(ROW, "on a core of their own", "nobody" if core is None else "both replicas"),
            told(ROW, "capacity before and after", f"{it.capacity:.1f}, {again:.1f} uploads/s"),
            at_least(ROW, "goodput against the mean of these", goodput / capacity, GOODPUT),
            told(ROW, "unscanned", f"{verdict.unseen} of {verdict.sent}: {it.unscanned_causes()}"),
            Line(ROW, "unscanned and not answered as configured", "0", str(wrong), not wrong),
            *(
                _grown(process, peak.bytes, start)
                for process, peak, start in zip(watched, peaks, before, strict=True)
            ),
        ]


async def _watched(processes: list[Process], seconds: float) -> list[Peak]:
    """The peak memory of each over the seconds."""
    with contextlib.ExitStack() as stack:
        peaks = [stack.enter_context(peak_of(process.service)) for process in processes]
        await asyncio.sleep(seconds)
    return peaks


def _memory(process: Process) -> int:
    return memory_of(process.service.pids)


def _goodput(it: Stage, begin: float, end: float) -> float:
    """Uploads scored within the budget, a second, in a stretch of time."""
    good = [
        span
        for span in spans(it.history.events, it.begun)
        if isinstance(span.end, Answered)
        and span.end.cause == "policy"
        and span.seconds <= BUDGET_SECONDS
        and begin <= span.end.at < end
    ]
    return len(good) / (end - begin)


def _longest(it: Stage) -> Line:
    longest = max((span.seconds for span in spans(it.history.events, it.begun)), default=0.0)
    return at_most(ROW, "longest upload", longest, BUDGET_SECONDS, " s")


def _grown(process: Process, peak: int, before: int) -> Line:
    kind = process.name.partition(" ")[0]
    what = f"{process.name} at {process.host}: memory above {before / _MB:.0f} MB"
    return at_most(ROW, what, (peak - before) / _MB, GROWTH_MB[kind], " MB")
