"""kill -9 of one of the replicas under load, and a new one on a new address."""

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
from benchmarks.rehearsal.table import Line, at_most

ROW = "kill"
SHARE_SECONDS = 30.0


async def kill(options: Options) -> list[Line]:
    """The row."""
    seconds = options.of(30.0)
    async with stage(Plan()) as it:
        async with it.load():
            await asyncio.sleep(seconds / 6)
            took = await _replace(it)
            await asyncio.sleep(seconds / 2)
        verdict = it.judged()
        return [
            load_line(ROW, it),
            *history_lines(ROW, verdict),
            unscanned_line(ROW, it, verdict),
            at_most(
                ROW,
                "until the new replica did half of an equal share of the work",
                took,
                SHARE_SECONDS,
                " s",
            ),
            *latency_lines(ROW, it),
        ]


async def _replace(it: Stage) -> float:
    """Kills one and starts another; how long that took to get its share once it was ready."""
    victim = it.busiest(3)
    others = [replica for replica in it.fleet.replicas if replica is not victim]
    await asyncio.to_thread(victim.kill)
    it.publish(*others)
    new = await it.start_replica()
    it.publish(*others, new)
    fair = 1 / len(it.fleet.living())
    return await it.until_share(new.host, fair / 2, SHARE_SECONDS)
