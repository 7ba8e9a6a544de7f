"""What `imagesafety evaluate` costs beside the service: `python -m benchmarks.evaluate`.

Throughput: the demo model scores drawn pictures, in turns as bytes that are ready in memory
(BulkScorer alone) and as files of a folder (all that evaluate does, with an empty cache).

Memory: the command itself looks at tiny files whose scores are in its cache, fewer and more of
them; the growth of its greatest memory is divided by the difference. The last line is JSON; with
CHECK=1 in the environment a missed goal makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from imagesafety.bulk import BulkImage, BulkOptions, BulkScorer
from imagesafety.client import ConceptSet
from imagesafety.evaluation.cached_scores import CachedScores, ViewPlace
from imagesafety.evaluation.collected import Collector
from imagesafety.evaluation.material import Labels, read_material, walk
from imagesafety.evaluation.score_cache import ScoreCache
from imagesafety.evaluation.score_section import options_digest
from imagesafety.evaluation.scored import score_material
from imagesafety.policy import Policy
from imagesafety.policy_file import find_policy, load_policy
from imagesafety.service_address import ServiceAddress
from inference.demo.material import draw_all
from tests.e2e.processes import free_port, inference, is_serving, running

GOAL_SHARE = 0.95
GOAL_BYTES = 500.0  # of memory for each file


class _NoBar:
    def advance(self, n: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


async def ready_bytes(folder: Path, policy: Policy, target: str) -> float:
    """Images a second of BulkScorer alone."""
    pictures = [file.path.read_bytes() for file in walk(folder, Labels())]

    async def images() -> AsyncIterator[BulkImage[int]]:
        for number, data in enumerate(pictures):
            yield BulkImage(number, data)

    began = time.monotonic()
    options = BulkOptions(ConceptSet(policy.concepts))
    async with (
        BulkScorer(target, options) as scorer,
        contextlib.aclosing(scorer.score(images())) as results,
    ):
        scored = [result.scores is not None async for result in results]
    return sum(scored) / (time.monotonic() - began)


async def files(folder: Path, policy: Policy, target: str) -> float:
    """Images a second of what evaluate does, with an empty cache."""
    names = [concept.name for concept in policy.concepts]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as here,
        ScoreCache(Path(here) / "scores") as cache,
        Collector(Path(here), policy) as collector,
    ):
        scoring = score_material(
            read_material(folder, names), policy, ServiceAddress(target), cache, bar=_NoBar()
        )
        async for scored in scoring:
            collector.add(scored)
        good = collector.files - len(collector.problems)
    return good / (time.monotonic() - began)


async def throughput(folder: Path, policy: Policy, rounds: int, target: str) -> float:
    """The median of how the two compare when measured one after the other, in turns."""
    await ready_bytes(folder, policy, target)  # warms up
    pairs = []
    for number in range(rounds):
        turn = (ready_bytes, files) if number % 2 else (files, ready_bytes)
        found = {run: await run(folder, policy, target) for run in turn}
        pairs.append((found[ready_bytes], found[files]))
        print(f"ready bytes {pairs[-1][0]:.1f}/s, files {pairs[-1][1]:.1f}/s")
    return statistics.median(read / ready for ready, read in pairs)


def peak_memory(policy: Policy, count: int, target: str) -> int:
    """The greatest resident memory of the command over so many files, in bytes."""
    rng = np.random.default_rng(count)
    with tempfile.TemporaryDirectory() as here:
        folder, cache_file = Path(here), Path(here) / "scores.sqlite3"
        with ScoreCache(cache_file) as cache:
            section = cache.section(
                policy.model, f"sha256:{'0' * 64}", options_digest(policy, _max_frames(target))
            )
            for number in range(count):
                label = "reject" if number % 11 == 0 else "accept"
                path = folder / "material" / label / f"{number // 1000:04}" / f"{number:08}.jpg"
                if number % 1000 < 11:
                    path.parent.mkdir(parents=True, exist_ok=True)
                data = f"picture {number}".encode()
                path.write_bytes(data)
                similarities = rng.normal(0.1, 0.1, (1, len(policy.concepts))).astype(np.float32)
                scores = CachedScores(similarities, places=(ViewPlace(),), media_type="image/jpeg")
                if section.put(hashlib.sha256(data).digest(), scores):
                    section.flush()
            section.flush()
        command = [sys.executable, "-m", "benchmarks.evaluate", "--measured", "evaluate"]
        command += [str(folder / "material"), "--policy", "demo", "--inference", target]
        command += ["--cache", str(cache_file), "--report", str(folder / "report")]
        ended = subprocess.run(  # noqa: S603
            command, check=True, capture_output=True, text=True
        )
        return int(ended.stderr.strip().splitlines()[-1])


def _max_frames(target: str) -> int:
    async def ask() -> int:
        async with BulkScorer(target, BulkOptions(ConceptSet(()))) as scorer:
            return (await scorer.describe_model(timeout=10)).limits.default_max_frames

    return asyncio.run(ask())


def main() -> int:
    """Measures and prints; the exit code."""
    if sys.argv[1:2] == ["--measured"]:
        from imagesafety.command import main as command

        code = command(sys.argv[2:])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
        return code
    parser = argparse.ArgumentParser(description="Measure what evaluate costs.")
    parser.add_argument("--pictures", type=int, default=2000, help="for throughput (2000)")
    parser.add_argument("--rounds", type=int, default=5, help="of throughput (5)")
    parser.add_argument("--files", type=int, default=200_000, help="for memory (200000)")
    options = parser.parse_args()
    policy = load_policy(find_policy("demo"))
    rows: list[dict[str, object]] = []
    missed = False
    if options.rounds:
        with inference() as service, tempfile.TemporaryDirectory() as here:
            draw_all(Path(here), options.pictures, 0, seed=7, size=96)
            measuring = throughput(Path(here), policy, options.rounds, service.address)
            share = asyncio.run(measuring)
        print(f"files at {share:.1%} of ready bytes")
        rows.append({"row": "throughput", "measured": share, "goal": GOAL_SHARE})
        missed |= share < GOAL_SHARE
    if options.files:
        address = f"127.0.0.1:{free_port()}"
        module = ["benchmarks.serving.null_inference", "dispatch"]
        flags = ["--model", "demo", "--listen", address]
        with running([*module, *flags], address, lambda: is_serving(address)):
            fewer = options.files // 10
            memory = {n: peak_memory(policy, n, address) for n in (fewer, options.files)}
        growth = (memory[options.files] - memory[fewer]) / (options.files - fewer)
        words = ", ".join(f"{n} files: {size / 2**20:.0f} MiB" for n, size in memory.items())
        print(f"{words}: {growth:.0f} bytes a file")
        rows.append({"row": "memory", "measured": growth, "goal": GOAL_BYTES})
        missed |= growth > GOAL_BYTES
    print(json.dumps({"benchmark": "evaluate", "rows": rows}))
    return 1 if os.environ.get("CHECK") == "1" and missed else 0


if __name__ == "__main__":
    sys.exit(main())
