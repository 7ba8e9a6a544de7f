"""Two replicas pinned to a core each, against one."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
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


@dataclass
class Rates:
    """Images a second, round by round."""

    alone: list[list[float]] = field(default_factory=lambda: [[] for _ in range(REPLICAS)])
    together: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Both at once against the mean of each alone: the median over the rounds."""
        each = zip(*self.alone, strict=True)
        ratios: list[float] = [
            both * REPLICAS / sum(alone) for both, alone in zip(self.together, each, strict=True)
        ]
        return float(statistics.median(ratios))


async def scale(options: Options) -> list[Line]:
    """The row. ViT-B-32, driven over gRPC: beside it, clients cost next to nothing."""
    return await asyncio.to_thread(_play, options.of(72.0) / (ROUNDS * (REPLICAS + 1)))


def _play(seconds: float) -> list[Line]:
    if len(cores()) < REPLICAS:
        raise BenchmarkError(f"there are not {REPLICAS} cores")
    rates = Rates()
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(model=model()))
        replicas = [fleet.start_replica(core=core) for core in cores()[:REPLICAS]]
        clients = [
            stack.enter_context(worker("gRPC client", "benchmarks.serving.load", "grpc"))
            for _ in replicas
        ]
        for replica, client in zip(replicas, clients, strict=True):
            _rate(client, replica, 2.0)
        before = [replica.service.cpu_seconds() for replica in replicas]
        for _ in range(ROUNDS):
            for number, (replica, client) in enumerate(zip(replicas, clients, strict=True)):
                rates.alone[number].append(_rate(client, replica, seconds))
            rates.together.append(_together(clients, replicas, seconds))
        used = [
            replica.service.cpu_seconds() - start
            for replica, start in zip(replicas, before, strict=True)
        ]
    alone = ", ".join(f"{statistics.median(each):.1f}" for each in rates.alone)
    busy = ", ".join(f"{each / (2 * ROUNDS * seconds):.0%}" for each in used)
    return [
        told(ROW, "model, and what drives it", f"ViT-B-32, gRPC, {CONCURRENCY} at once for each"),
        told(ROW, "one replica alone", f"{alone} images/s"),
        told(ROW, "both at once", f"{statistics.median(rates.together):.1f} images/s"),
        told(ROW, "of its core each had, while it had work", busy),
        told(ROW, "on the same cores", "the replicas' decoders; clients and all else float"),
        at_least(ROW, "both at once against one", rates.ratio, TIMES, " times"),
    ]


def _rate(client: Worker, replica: Process, seconds: float) -> float:
    """Images a second of one replica."""
    figures = client.ask(
        path="ScoreImage",
        target=replica.service.address,
        files=SMALL,
        concurrency=CONCURRENCY,
        seconds=seconds,
    )
    return float(figures["images_per_second"])


def _together(clients: list[Worker], replicas: list[Process], seconds: float) -> float:
    """Images a second of all replicas, each with its client, at the same time."""

    async def ask() -> list[float]:
        return await asyncio.gather(
            *(
                asyncio.to_thread(_rate, client, replica, seconds)
                for client, replica in zip(clients, replicas, strict=True)
            )
        )

    return sum(asyncio.run(ask()))
