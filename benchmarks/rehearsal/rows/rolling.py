"""A rolling restart of all gateways and all replicas under load."""

from __future__ import annotations

import asyncio

from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.outcome import (
    history_lines,
    latency_lines,
    load_line,
    unscanned_line,
)
from benchmarks.rehearsal.stage import Plan, Stage, stage
from benchmarks.rehearsal.table import Line, told

ROW = "rolling"
PLAN = Plan(gateways=2)


async def rolling(options: Options) -> list[Line]:
    """The row. Its length is that of the restarts; `seconds` is the time between them."""
    pause = options.of(18.0) / 6
    async with stage(PLAN) as it:
        async with it.load():
            await asyncio.sleep(pause)
            await _restart_gateways(it, pause)
            await _restart_replicas(it, pause)
        verdict = it.judged()
        restarts = f"{len(it.places)} gateways, {len(it.fleet.replicas) // 2} replicas"
        return [
            load_line(ROW, it),
            told(ROW, "restarted with SIGTERM", restarts),
            *history_lines(ROW, verdict),
            unscanned_line(ROW, it, verdict),
            *latency_lines(ROW, it),
        ]


async def _restart_gateways(it: Stage, pause: float) -> None:
    """In place, as a StatefulSet or systemd would: the other one takes the uploads meanwhile."""
    for place, old in zip(it.places, tuple(it.fleet.gateways), strict=True):
        await asyncio.to_thread(old.stop)
        await it.start_gateway(place)
        await asyncio.sleep(pause)


async def _restart_replicas(it: Stage, pause: float) -> None:
    """As a Deployment does: a new one on a new address is ready before an old one is stopped."""
    serving = list(it.fleet.replicas)
    for old in tuple(serving):
        serving.append(await it.start_replica())
        serving.remove(old)
        it.publish(*serving)
        await asyncio.to_thread(old.stop)
        await asyncio.sleep(pause)
