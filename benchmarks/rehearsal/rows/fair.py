"""Two bulk clients that never stop, and one that uploads now and then."""

from __future__ import annotations

import asyncio
import contextlib

from benchmarks.rehearsal import arrivals
from benchmarks.rehearsal.bulk import batch_seconds, bulk_client
from benchmarks.rehearsal.heavy_model import heavy_model
from benchmarks.rehearsal.history import quantile
from benchmarks.rehearsal.pictures import Pictures, drawings
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.outcome import history_lines
from benchmarks.rehearsal.stage import Plan, Stage, stage
from benchmarks.rehearsal.table import Line, at_most, told
from imagesafety.client import ConceptSet
from imagesafety.policy_file import find_policy, load_policy

ROW = "fair"
MAX_BATCH = 8  # of fleet.INFERENCE_FLAGS
AT_ONCE = 32  # images on each stream
RATE = 5.0  # interactive uploads a second, one at a time
ROUNDS = 3
TIMES = 1.5


async def fair(options: Options) -> list[Line]:
    """The row: idle and loaded in turns."""
    seconds = options.of(60.0) / (3 * ROUNDS)
    heavy = await asyncio.to_thread(heavy_model)
    plan = Plan(replicas=1, model=heavy.model, policy=heavy.policy, measure_seconds=2.0)
    pictures = Pictures(await asyncio.to_thread(drawings, 8))
    concepts = ConceptSet(load_policy(find_policy(heavy.policy)).concepts)
    idle: list[float] = []
    loaded: list[float] = []
    bulk = 0
    async with stage(plan) as it:
        target = it.fleet.replicas[0].service.address
        batches = await batch_seconds(target, pictures, concepts, MAX_BATCH, 9)
        for _ in range(ROUNDS):
            await it.client.post()  # after the last batch of the bulk clients that have just left
            idle += await arrivals.one_by_one(it.client, RATE, seconds)
            bulk += await _loaded(it, target, pictures, concepts, 2 * seconds, loaded)
        verdict = it.judged()
    batch = quantile(batches, 0.5)
    p99_idle, p99 = quantile(idle, 0.99), quantile(loaded, 0.99)
    rate = bulk / (2 * seconds * ROUNDS)
    return [
        told(ROW, "load", f"2 streams of {AT_ONCE} images, and up to {RATE:g} uploads/s"),
        *history_lines(ROW, verdict),
        told(ROW, "idle: p50, p99", f"{_ms(quantile(idle, 0.5))}, {_ms(p99_idle)} of {len(idle)}"),
        told(ROW, f"a batch of {MAX_BATCH}, alone", _ms(batch)),
        told(ROW, "bulk images meanwhile", f"{rate:.1f} a second"),
        told(ROW, "loaded: p50", f"{_ms(quantile(loaded, 0.5))} of {len(loaded)}"),
        at_most(
            ROW,
            f"loaded: p99, against {TIMES:g} × idle and a batch",
            1000 * p99,
            1000 * (TIMES * p99_idle + batch),
            " ms",
        ),
    ]


async def _loaded(
    it: Stage,
    target: str,
    pictures: Pictures,
    concepts: ConceptSet,
    seconds: float,
    taken: list[float],
) -> int:
    """Adds the latencies beside the bulk clients; how many images those had scored."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(bulk_client(target, name, pictures, concepts, AT_ONCE))
            for name in ("bulk one", "bulk two")
        ]
        await asyncio.sleep(1)
        before = sum(client.scored for client in clients)
        taken += await arrivals.one_by_one(it.client, RATE, seconds)
        return sum(client.scored for client in clients) - before


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
