"""The bare encoder and the bare decoder: `python -m benchmarks.serving.bare FLAGS OF INFERENCE`.

A process with nothing but the model. Takes one JSON object a line from standard input and answers
each with one on standard output.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from benchmarks.serving.material import pictures
from inference.decoder.decode import Decoder
from inference.decoder.media import MediaLimits, Request
from inference.encoder import Encoder
from inference.server import load_encoder
from inference.settings import load_settings
from inference.warm_up import seconds_between


def forward(encoder: Encoder, batch: int, seconds: float, overlap: int) -> dict[str, float]:
    """Encodes batches of ready pixels, `overlap` at once, each thread one after the other."""
    size = encoder.description.preprocessing.view_bytes
    views = [random.Random(number).randbytes(size) for number in range(batch)]  # noqa: S311
    with ThreadPoolExecutor(overlap) as threads:
        # One alone runs in the main thread, where PyTorch is fastest.
        spread = map if overlap == 1 else threads.map
        list(spread(encoder.encode_images, [views] * overlap))
        until = time.perf_counter() + seconds
        lanes = list(spread(lambda _: _repeat(encoder, views, until), range(overlap)))
    took = [end - start for lane in lanes for start, end in pairwise(lane)]
    between = statistics.fmean(took) if overlap == 1 else seconds_between(lanes)
    return {"images_per_second": batch / between, "batch_ms": statistics.median(took) * 1000}


def _repeat(encoder: Encoder, views: Sequence[bytes], until: float) -> list[float]:
    """When the first of some calls began, and when each ended."""
    times = [time.perf_counter()]
    while len(times) < 4 or times[-1] < until:
        encoder.encode_images(views)
        times.append(time.perf_counter())
    return times


def decode(encoder: Encoder, kind: str, seconds: float) -> dict[str, float]:
    """Decodes files, one after the other, in this one thread."""
    limits = MediaLimits(max_pixels=40_000_000, max_frames=10_000, max_seconds=3600)
    decoder = Decoder(encoder.description.preprocessing, limits, random.Random(0))  # noqa: S311
    request = Request("", max_frames=16, frame_seconds=60)
    files = pictures(kind)
    took: list[float] = []
    cpu = time.thread_time()
    while sum(took) < seconds or len(took) < 3:
        start = time.perf_counter()
        decoder.decode(files[len(took) % len(files)], request)
        took.append(time.perf_counter() - start)
    cpu = time.thread_time() - cpu
    return {"core_ms": cpu / len(took) * 1000, "p50_ms": statistics.median(took) * 1000}


def _answer(encoder: Encoder, command: dict[str, Any]) -> dict[str, Any]:
    if "forward" in command:
        overlap = encoder.concurrency if command.get("side_by_side") else 1
        return dict(forward(encoder, command["forward"], command["seconds"], overlap))
    if "decode" in command:
        return dict(decode(encoder, command["decode"], command["seconds"]))
    return {"backend": encoder.description.backend}


def main() -> None:
    """Answers until standard input ends."""
    encoder = load_encoder(load_settings(sys.argv[1:]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(encoder, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
