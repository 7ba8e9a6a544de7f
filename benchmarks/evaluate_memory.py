"""How much memory `imagesafety evaluate` needs for a file: `python -m benchmarks.evaluate_memory`.

The command itself looks at tiny files whose scores are in its cache, fewer and more of them; the
growth of its greatest memory is divided by the difference. The last line is JSON; with CHECK=1 in
the environment a missed goal makes the exit code 1. (Its speed is measured by `make bench-bulk`.)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from imagesafety.bulk import BulkOptions, BulkScorer
from imagesafety.client import ConceptSet
from imagesafety.command import main as command
from imagesafety.evaluation.cached_scores import CachedScores, ViewPlace
from imagesafety.evaluation.score_cache import ScoreCache
from imagesafety.evaluation.score_section import options_digest
from imagesafety.policy import Policy
from imagesafety.policy_file import find_policy, load_policy
from tests.e2e.processes import free_port, is_serving, running

GOAL_BYTES = 500.0  # of memory for each file


def peak_memory(policy: Policy, count: int, target: str) -> int:
    """The greatest resident memory of the command over so many files, in bytes."""
    with tempfile.TemporaryDirectory() as here:
        folder, cache_file = Path(here), Path(here) / "scores.sqlite3"
        _write_scored_files(folder / "material", cache_file, policy, count, target)
        arguments = [sys.executable, "-m", "benchmarks.evaluate_memory", "--measured", "evaluate"]
        arguments += [str(folder / "material"), "--policy", "demo", "--inference", target]
        arguments += ["--cache", str(cache_file), "--report", str(folder / "report")]
        ended = subprocess.run(  # noqa: S603
            arguments, check=True, capture_output=True, text=True
        )
        return int(ended.stderr.strip().splitlines()[-1])


def _write_scored_files(
    material: Path, cache_file: Path, policy: Policy, count: int, target: str
) -> None:
    """Tiny files, one in eleven to be rejected, and scores for all of them in the cache."""
    rng = np.random.default_rng(count)
    with ScoreCache(cache_file) as cache:
        section = cache.section(
            policy.model, f"sha256:{'0' * 64}", options_digest(policy, *_described(target))
        )
        for number in range(count):
            label = "reject" if number % 11 == 0 else "accept"
            path = material / label / f"{number // 1000:04}" / f"{number:08}.jpg"
            if number % 1000 < 11:
                path.parent.mkdir(parents=True, exist_ok=True)
            data = f"picture {number}".encode()
            path.write_bytes(data)
            similarities = rng.normal(0.1, 0.1, (1, len(policy.concepts))).astype(np.float32)
            scores = CachedScores(similarities, places=(ViewPlace(),), media_type="image/jpeg")
            if section.put(hashlib.sha256(data).digest(), scores):
                section.flush()
        section.flush()


def _described(target: str) -> tuple[int, str]:
    async def ask() -> tuple[int, str]:
        async with BulkScorer(target, BulkOptions(ConceptSet(()))) as scorer:
            found = await scorer.describe_model(timeout=10)
            return found.limits.default_max_frames, found.model.backend

    return asyncio.run(ask())


def main() -> int:
    """Measures and prints; the exit code."""
    if sys.argv[1:2] == ["--measured"]:
        code = command(sys.argv[2:])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
        return code
    parser = argparse.ArgumentParser(description="Measure the memory of evaluate.")
    parser.add_argument("--files", type=int, default=200_000, help="the more of the two (200000)")
    more: int = parser.parse_args().files
    fewer = more // 10
    policy = load_policy(find_policy("demo"))
    address = f"127.0.0.1:{free_port()}"
    module = ["benchmarks.serving.null_inference", "dispatch"]
    flags = ["--model", "demo", "--listen", address]
    with running([*module, *flags], address, lambda: is_serving(address)):
        memory = {count: peak_memory(policy, count, address) for count in (fewer, more)}
    growth = (memory[more] - memory[fewer]) / (more - fewer)
    words = ", ".join(f"{count} files: {size / 2**20:.0f} MiB" for count, size in memory.items())
    print(f"{words}: {growth:.0f} bytes a file")
    row = {"row": "memory", "measured": growth, "goal": GOAL_BYTES}
    print(json.dumps({"benchmark": "evaluate_memory", "rows": [row]}))
    return 1 if os.environ.get("CHECK") == "1" and growth > GOAL_BYTES else 0


if __name__ == "__main__":
    sys.exit(main())
