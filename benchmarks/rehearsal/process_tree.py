"""What processes and their children take, read from /proc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessFigures:
    """One process."""

    pid: int
    parent: int
    name: str
    cpu_seconds: float
    resident_bytes: int
    threads: int
    descriptors: int


def figures(*, descriptors: bool = False) -> dict[int, ProcessFigures]:
    """All processes of the machine, by id; `descriptors` are counted only if asked for."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                pid, text = int(folder.name), (folder / "stat").read_text()
                name = text[text.index("(") + 1 : text.rindex(")")]
                fields = text[text.rindex(")") + 2 :].split()
                count = len(list((folder / "fd").iterdir())) if descriptors else 0
                found[pid] = ProcessFigures(
                    pid=pid,
                    parent=int(fields[1]),
                    name=name,
                    cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
                    resident_bytes=int(fields[21]) * _PAGE,
                    threads=int(fields[17]),
                    descriptors=count,
                )
    return found


def tree(processes: Mapping[int, ProcessFigures], root: int) -> list[ProcessFigures]:
    """A process and all below it; empty if it is gone."""
    children = defaultdict(list)
    for process in processes.values():
        children[process.parent].append(process.pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if pid in processes:
            found.append(processes[pid])
            waiting += children[pid]
    return found


@dataclass(frozen=True)
class CpuSample:
    """Processor seconds so far of each replica, by name, at a time of time.monotonic()."""

    at: float
    seconds: Mapping[str, float]


class CpuShares:
    """Who does the work: samples of what each replica has used of the processors."""

    def __init__(self, roots: Callable[[], Mapping[str, int]]) -> None:
        """`roots` gives the process id of each replica that there is now."""
        self._roots = roots
        self.samples: list[CpuSample] = []

    def sample(self) -> None:
        """Takes one."""
        processes, at = figures(), time.monotonic()
        used = {
            name: sum(process.cpu_seconds for process in tree(processes, pid))
            for name, pid in self._roots().items()
        }
        self.samples.append(CpuSample(at, used))

    def share(self, name: str, seconds: float) -> float:
        """A replica's share of the work of all in the last seconds, 0 to 1."""
        return share(self.samples, name, seconds)

    @contextlib.asynccontextmanager
    async def watching(self, every: float = 0.5) -> AsyncIterator[None]:
        """Samples while the block runs."""

        async def watch() -> None:
            while True:
                await asyncio.to_thread(self.sample)
                await asyncio.sleep(every)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def share(samples: list[CpuSample], name: str, seconds: float) -> float:
    """The share of `name` between the last sample and the one `seconds` before it."""
    if len(samples) < 2:
        return 0.0
    last = samples[-1]
    before = next(
        (one for one in reversed(samples[:-1]) if one.at <= last.at - seconds), samples[0]
    )
    used = {who: max(now - before.seconds.get(who, now), 0.0) for who, now in last.seconds.items()}
    total = sum(used.values())
    return used.get(name, 0.0) / total if total else 0.0
