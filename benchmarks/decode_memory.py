"""What many large uploads at once cost in memory: `python -m benchmarks.decode_memory`.

Starts the inference service with the demo model, sends 64 pictures of 40 megapixels at once, and
prints the most memory that the service, its decoders and the uploads took together, against the
bound that the settings make: what the idle service takes, the memory of every decoder, and the
bytes of images in flight. The last line is JSON; with CHECK=1 in the environment a missed goal
makes the exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

from imagesafety.client import ConceptSet, ScoringClient, ScoringError
from imagesafety.policy_file import find_policy, load_policy
from tests.e2e.pict_rs import pieces
from tests.e2e.processes import children, inference, off_loop
from tests.media import still

PICTURES = 64
SIZE = (8000, 5000)
WORKERS = 2
DECODE_MEMORY = 1024**3
BYTES_IN_FLIGHT = 512 * 1024**2
MIB = 1024**2


def files() -> list[bytes]:
    """Pictures of 40 megapixels in the types that photos come in, some of them transparent."""
    noise = Image.effect_noise((400, 250), 80).resize(SIZE)
    colour = Image.merge("RGB", (noise, noise.transpose(Image.Transpose.ROTATE_180), noise))
    transparent = colour.copy()
    transparent.putalpha(noise)
    return [
        still(colour, "image/jpeg", quality=75),
        still(colour.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "image/jpeg", progressive=True),
        still(transparent, "image/webp", quality=30, method=0),
        still(transparent.quantize(16), "image/png"),
    ]


def shared_memory() -> int:
    """Bytes of memory files in the whole machine; uploads are some of it."""
    found = re.search(r"^Shmem:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def proportional(pid: int) -> int:
    """Bytes of memory of a process; what it shares with others counts in part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def service_memory(pid: int) -> int:
    """The service, its decoders, and memory files."""
    return sum(map(proportional, (pid, *children(pid)))) + shared_memory()


async def run() -> dict[str, float]:
    """Sends the pictures; the figures in MiB, and how many pictures were scored."""
    pictures = files()
    print(f"files of {', '.join(f'{len(data) / MIB:.1f}' for data in pictures)} MiB", flush=True)
    concepts = ConceptSet(load_policy(find_policy("demo")).concepts)
    flags = ["--decode-workers", str(WORKERS), "--decode-memory", str(DECODE_MEMORY)]
    flags += ["--max-bytes-in-flight", str(BYTES_IN_FLIGHT), "--decode-seconds", "60"]
    async with off_loop(inference(*flags)) as service, ScoringClient(service.address) as client:
        pid = service.process.pid

        async def score(data: bytes) -> str:
            try:
                scores = await client.score_image(pieces(data), concepts=concepts, timeout=300)
            except ScoringError as error:
                return error.reason
            return "scored" if not scores.partial else "partial"

        await score(pictures[0][:1000])
        idle = peak = await asyncio.to_thread(service_memory, pid)
        tasks = [asyncio.create_task(score(pictures[n % 4])) for n in range(PICTURES)]
        while not all(task.done() for task in tasks):
            peak = max(peak, await asyncio.to_thread(service_memory, pid))
            await asyncio.sleep(0.02)
        answers = Counter(task.result() for task in tasks)
        await asyncio.sleep(2)
        after = await asyncio.to_thread(service_memory, pid)
    print(f"answers: {dict(answers)}")
    bound = idle + WORKERS * DECODE_MEMORY + BYTES_IN_FLIGHT
    figures = {"idle": idle, "peak": peak, "after": after, "bound": bound}
    result = {name: value / MIB for name, value in figures.items()}
    return {**result, "scored": answers["scored"]}


def main() -> int:
    """The command."""
    figures = asyncio.run(run())
    for name in ("idle", "peak", "after", "bound"):
        print(f"{name:<6} {figures[name]:7.0f} MiB")
    met = figures["peak"] <= figures["bound"] and figures["scored"] == PICTURES
    print(f"under the bound, and all {PICTURES} scored: {'met' if met else 'MISSED'}")
    print(json.dumps({"benchmark": "decode-memory", **figures}))
    return 0 if met or os.environ.get("CHECK") != "1" else 1


if __name__ == "__main__":
    sys.exit(main())
