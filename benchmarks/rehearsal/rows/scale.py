"""Two replicas pinned to a core each, against one."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.rehearsal.fleet import Fleet, Process, cores
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.table import Line, at_least, told
from benchmarks.serving.material import SMALL, model
from benchmarks.serving.processes import BenchmarkError, Worker, worker

ROW = "scale"
REPLICAS = 2
ROUNDS = 3
CONCURRENCY = 16  # for each replica: two batches
TIMES = 1.9


@dataclass(frozen=True)
class Measured:
    """Images a second of one replica, and the part of a core that it got meanwhile."""

    rate: float
    core: float


@dataclass
class Rounds:
    """What was measured, by round and replica."""

    alone: list[list[Measured]] = field(default_factory=list)
    together: list[list[Measured]] = field(default_factory=list)

    def ratio(self) -> float:
        """Both at once against the mean of each alone: the median over the rounds."""
        return float(
            statistics.median(
                REPLICAS * sum(one.rate for one in both) / sum(one.rate for one in alone)
                for both, alone in zip(self.together, self.alone, strict=True)
            )
        )


def _shown(rounds: list[list[Measured]]) -> str:
    """Medians over the rounds, of each replica."""
    return ", ".join(
        f"{statistics.median(one.rate for one in each):.1f} "
        f"({statistics.median(one.core for one in each):.0%} of a core)"
        for each in zip(*rounds, strict=True)
    )


async def scale(options: Options) -> list[Line]:
    """The row. ViT-B-32, driven over gRPC: beside it, clients cost next to nothing."""
    return await asyncio.to_thread(_play, options.of(72.0) / (ROUNDS * (REPLICAS + 1)))


def _play(seconds: float) -> list[Line]:
    if len(cores()) < REPLICAS:
        raise BenchmarkError(f"there are not {REPLICAS} cores")
    rounds = Rounds()
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(model=model()))
        replicas = [fleet.start_replica(core=core) for core in cores()[:REPLICAS]]
        clients = [
            stack.enter_context(worker("gRPC client", "benchmarks.serving.load", "grpc"))
            for _ in replicas
        ]
        pairs = list(zip(clients, replicas, strict=True))
        for client, replica in pairs:
            _measured(client, replica, 2.0)
        for _ in range(ROUNDS):
            rounds.alone.append([_measured(*pair, seconds) for pair in pairs])
            with ThreadPoolExecutor(REPLICAS) as threads:
                both = [threads.submit(_measured, *pair, seconds) for pair in pairs]
                rounds.together.append([each.result() for each in both])
    return [
        told(ROW, "model, and what drives it", f"ViT-B-32, gRPC, {CONCURRENCY} at once for each"),
        told(ROW, "images/s, each alone", _shown(rounds.alone)),
        told(ROW, "images/s, at the same time", _shown(rounds.together)),
        told(ROW, "on the same cores", "each one's decoder is pinned with it; clients float"),
        at_least(ROW, "both at once against one", rounds.ratio(), TIMES, " times"),
    ]


def _measured(client: Worker, replica: Process, seconds: float) -> Measured:
    begin, used = time.monotonic(), replica.service.cpu_seconds()
    figures = client.ask(
        path="ScoreImage",
        target=replica.service.address,
        files=SMALL,
        concurrency=CONCURRENCY,
        seconds=seconds,
    )
    used = replica.service.cpu_seconds() - used
    return Measured(float(figures["images_per_second"]), used / (time.monotonic() - begin))
