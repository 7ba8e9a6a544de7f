"""A replica that hangs, one that is ten times slower, and one that is full."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from benchmarks.rehearsal.checker import UNSCANNED
from benchmarks.rehearsal.fleet import Process
from benchmarks.rehearsal.full_replica import occupied
from benchmarks.rehearsal.history import Answered, quantile, spans
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.outcome import (
    history_lines,
    latency_lines,
    load_line,
    unscanned_line,
)
from benchmarks.rehearsal.stage import Plan, Stage, stage
from benchmarks.rehearsal.table import Line, at_least, at_most, told

AWAY_SECONDS = 10.0  # "within seconds"
BACK_SECONDS = 30.0
SLOWER = 10.0
AFFECTED_SECONDS, AFFECTED_TIMES = 1.0, 5.0
MAX_IMAGES = 32  # of the replicas that are to be filled
FULL = Plan(replica_flags=("--max-images", str(MAX_IMAGES), "--idle-seconds", "3600"))

Trouble = Callable[[Stage, Process], AbstractAsyncContextManager[None]]


async def hang(options: Options) -> list[Line]:
    """SIGSTOP, and after a while SIGCONT."""
    return await _play("hang", options, Plan(), _frozen)


async def slow(options: Options) -> list[Line]:
    """Stopped nine tenths of the time, in short periods."""
    return await _play("slow", options, Plan(), _slowed)


async def exhausted(options: Options) -> list[Line]:
    """Calls that never end hold all its places, so that it answers RESOURCE_EXHAUSTED."""
    return await _play("exhausted", options, FULL, _occupied)


async def _play(row: str, options: Options, plan: Plan, trouble: Trouble) -> list[Line]:
    seconds = options.of(45.0)
    async with stage(plan) as it:
        fair = 1 / plan.replicas
        async with it.load():
            await asyncio.sleep(seconds / 5)
            patient = it.busiest(seconds / 10)
            before = [it.shares.share(one.host, seconds / 10) for one in it.fleet.replicas]
            began = time.monotonic()
            async with trouble(it, patient):
                away = await it.until_share_under(patient.host, fair / 2, seconds / 2)
                await asyncio.sleep(max(0.0, began + seconds / 2 - time.monotonic()))
                during = it.shares.share(patient.host, seconds / 4)
            ended = time.monotonic()
            back = await it.until_share(patient.host, fair / 2, BACK_SECONDS)
            await asyncio.sleep(seconds / 10)
        verdict = it.judged()
        return [
            load_line(row, it),
            at_least(row, "least of an equal share of work, before it", min(before) / fair, 0.5),
            *history_lines(row, verdict),
            unscanned_line(row, it, verdict),
            *latency_lines(row, it),
            _last_affected(row, it, began, ended),
            at_most(row, "until it did under half of an equal share", away, AWAY_SECONDS, " s"),
            at_most(row, "until it did half of one again, after it", back, BACK_SECONDS, " s"),
            told(row, "its share during it", f"{during:.0%}"),
        ]


def _last_affected(row: str, it: Stage, began: float, ended: float) -> Line:
    """When the last upload was sent that still suffered: unscanned, failed or much slower."""
    every = spans(it.history.events, it.begun)
    usual = quantile((span.seconds for span in every if span.at < began - 1), 0.99)
    limit = max(AFFECTED_SECONDS, AFFECTED_TIMES * usual)
    affected = [
        span.at - began
        for span in every
        if began <= span.at < ended
        and (
            span.seconds > limit
            or not isinstance(span.end, Answered)
            or span.end.cause in UNSCANNED
        )
    ]
    last = max(affected, default=0.0)
    what = f"after its begin, the last of {len(affected)} uploads came that took over {limit:.1f} s"
    return at_most(row, f"{what} or failed", last, AWAY_SECONDS, " s")


@contextlib.asynccontextmanager
async def _frozen(it: Stage, patient: Process) -> AsyncIterator[None]:
    patient.freeze()
    try:
        yield
    finally:
        patient.thaw()


@contextlib.asynccontextmanager
async def _slowed(it: Stage, patient: Process) -> AsyncIterator[None]:
    with patient.slowed(SLOWER):
        yield


@contextlib.asynccontextmanager
async def _occupied(it: Stage, patient: Process) -> AsyncIterator[None]:
    async with occupied(patient.service.address, MAX_IMAGES):
        yield
