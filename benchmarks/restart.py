"""Time until inference scores again after it died: `python -m benchmarks.restart`.

Starts the service with the demo model in an empty cache folder and then again in the same one,
kills it each time after its first score, and prints the seconds from the start of the process until
each stage was over, beside the processor time of the service and its decoders. The last line is
JSON; with CHECK=1 in the environment a warm start over the goal makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.e2e.calls import RED, Caller
from tests.e2e.processes import children, free_port, is_serving, wait_until
from tests.media import drawn, still

GOAL = 5.0
"""Seconds to the first score with a warm cache, on two processors without other work."""

STAGES = {
    "model loaded": "inference: model ",
    "batch times known": "batches of at most",
    "listening": "listening on",
}
"""The line of the log with which each ends."""

SCORED, PROCESSOR = "first score", "processor time"


def start(cache: Path, flags: list[str]) -> dict[str, float]:
    """Start the service once; seconds by stage."""
    address = f"127.0.0.1:{free_port()}"
    command = ["inference", "--listen", address, "--cache-folder", str(cache), *flags]
    begun = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", *command], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    found: dict[str, float] = {}
    lines: list[str] = []

    def read() -> None:
        for line in process.stderr or ():
            lines.append(line)
            for stage, text in STAGES.items():
                if text in line:
                    found.setdefault(stage, time.monotonic() - begun)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_until(lambda: process.poll() is not None or is_serving(address), "start of inference")
        if process.poll() is not None:
            raise SystemExit("inference did not start:\n" + "".join(lines))
        end = asyncio.run(_score(address))
        found[SCORED] = time.monotonic() - begun
        if not end or end[0] < RED:
            raise SystemExit(f"the red triangle was not recognised: {end}")
        found[PROCESSOR] = sum(map(_processor_seconds, (process.pid, *children(process.pid))))
    finally:
        process.kill()
        process.wait()
        reader.join()
    return found


async def _score(address: str) -> tuple[float, ...]:
    async with Caller(address) as caller:
        return (await caller.score(still(drawn(("red", "triangle"), size=100)))).similarities


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description="time the start of inference, cold and warm")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each kind")
    parser.add_argument("flags", nargs="*", help="of inference, after --")
    arguments = parser.parse_args()
    cold, warm = [], []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            cold.append(start(cache, arguments.flags))
            warm.append(start(cache, arguments.flags))
    print(f"{'seconds, medians of ' + str(arguments.rounds):24}{'cold':>8}{'warm':>8}")
    medians = {}
    for stage in (*STAGES, SCORED, PROCESSOR):
        medians[stage] = [statistics.median(each[stage] for each in kind) for kind in (cold, warm)]
        print(f"{stage:24}{medians[stage][0]:8.2f}{medians[stage][1]:8.2f}")
    met = medians[SCORED][1] <= GOAL
    print(json.dumps({"goal": GOAL, "met": met, "seconds": medians}))
    return 0 if met or os.environ.get("CHECK") != "1" else 1


if __name__ == "__main__":
    sys.exit(main())
