"""How much of the machine others took meanwhile: on a busy one, figures mean little."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rehearsal.process_tree import figures, tree

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE, _IO_WAIT = 3, 4  # columns of /proc/stat; the first eight add up to all time, in ticks


@dataclass(frozen=True)
class Moment:
    """Processor seconds so far: of the whole machine, and of ours."""

    at: float
    busy: float
    ours: float


def moment() -> Moment:
    """Now. Ours are this process, its living descendants, and the children that it waited for."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(column) for column in line.split()[1:9]]
    times = os.times()
    living = sum(process.cpu_seconds for process in tree(figures(), os.getpid()))
    return Moment(
        time.monotonic(),
        (sum(ticks) - ticks[_IDLE] - ticks[_IO_WAIT]) / _TICKS,
        living + times.children_user + times.children_system,
    )


def foreign_share(before: Moment, after: Moment) -> float:
    """The part of all processors that others took between two moments, 0 to 1."""
    taken = (after.busy - before.busy) - (after.ours - before.ours)
    return max(0.0, taken / ((after.at - before.at) * (os.cpu_count() or 1)))
