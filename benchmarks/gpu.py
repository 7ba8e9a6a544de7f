"""What is left of a GPU's speed in the encoder: `python -m benchmarks.gpu`, on a CUDA machine.

The bare model runs as a CUDA graph of one batch size, again and again on pixels that are already
there. Ours gets pictures in ordinary memory, as many calls at once as it allows, and gives
embeddings back there; then the same with JPEGs, decoded in processes of their own meanwhile. All in
turns, with random weights: nothing is downloaded. The last line is JSON; with CHECK=1 in the
environment a missed goal makes the exit code 1. Without CUDA it says so, and the code is 0 (2 with
CHECK=1).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import open_clip
import torch

from inference.backends.factory import pytorch_tower
from inference.backends.lanes import CpuShare
from inference.backends.pytorch_tower import ImageGraph
from inference.backends.tower import Backend, ImageTower, PictureSize, TowerSpec
from inference.decoder.media import MediaLimits, Preprocessing, Request
from inference.decoder.protocol import WorkerSettings
from inference.decoder_pool import DecoderPool
from inference.demo.drawing import random_scene, render
from inference.shared_file import SharedFile
from inference.work_queue import Priority
from tests.media import still

MODELS = ("ViT-B-32", "ViT-B-16-SigLIP2-256", "ViT-L-14")
BATCHES = (1, 8, 32, 64, 128)
GOAL = 0.95
GOAL_MODELS = ("ViT-B-16-SigLIP2-256", "ViT-L-14")
SECONDS = 1.0  # of one reading
LIMITS = MediaLimits(max_pixels=40_000_000, max_frames=10_000, max_seconds=3600)
REQUEST = Request("", max_frames=16, frame_seconds=60)


@dataclass(frozen=True)
class Row:
    """A ratio to the bare model at its best batch, and the goal that it is held to, if any."""

    row: str
    measured: float
    goal: float | None
    met: bool


def bare(graph: ImageGraph, size: PictureSize, batch: int) -> Callable[[], None]:
    """One batch of the model alone, on normalised pixels in its own precision."""
    pixels = torch.randn(batch, 3, size.height, size.width, device="cuda", dtype=graph.dtype)
    pixels = pixels.to(memory_format=torch.channels_last)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(3):
                graph.visual(pixels)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, stream=stream):
            graph.visual(pixels)
    return recorded.replay


def bare_rate(replay: Callable[[], None], batch: int) -> float:
    """Images a second of the bare model."""
    replay()
    torch.cuda.synchronize()
    batches, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for _ in range(10):
            replay()
        batches += 10
        torch.cuda.synchronize()
    return batches * batch / (time.perf_counter() - start)


def our_rate(tower: ImageTower, pictures: Sequence[bytes], batch: int) -> float:
    """Images a second through `encode`, with overlapping calls."""
    chunk = [pictures[index % len(pictures)] for index in range(batch)]
    end = time.perf_counter() + SECONDS

    def calls(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            tower.encode(chunk)
            done += 1
        return done

    with ThreadPoolExecutor(tower.concurrency) as threads:
        start = time.perf_counter()
        batches = sum(threads.map(calls, range(tower.concurrency)))
        return batches * batch / (time.perf_counter() - start)


async def decoded_rate(tower: ImageTower, size: PictureSize, batch: int) -> float:
    """Images a second from small JPEGs: decoder processes fill batches while others are encoded."""
    rng = np.random.default_rng(0)
    files = [SharedFile("benchmark") for _ in range(16)]
    for file in files:
        file.append(still(render(random_scene(rng), 320, 240), quality=85))
    spec = Preprocessing(size.width, size.height, "squash", "bicubic", 0)
    settings = WorkerSettings(spec, LIMITS, 2 * 1024**3, 60, filtered=True)
    workers = len(os.sched_getaffinity(0))
    pool = DecoderPool(settings, workers=workers, max_queue=10_000, max_views=100_000)
    gate = asyncio.Semaphore(tower.concurrency)
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(tower.concurrency)

    async def decode(number: int) -> bytes:
        async with pool.decoded(
            files[number % len(files)], REQUEST, priority=Priority.BULK, deadline=float("inf")
        ) as media:
            return bytes(media.pixels[0])

    async def one_batch() -> None:
        pictures = await asyncio.gather(*map(decode, range(batch)))
        async with gate:
            await loop.run_in_executor(threads, tower.encode, pictures)

    await pool.start()
    try:
        await asyncio.gather(*(one_batch() for _ in range(2)))
        batches, start = 0, time.perf_counter()
        while time.perf_counter() - start < 3 * SECONDS:
            await asyncio.gather(*(one_batch() for _ in range(6)))
            batches += 6
        return batches * batch / (time.perf_counter() - start)
    finally:
        await pool.close()
        threads.shutdown()
        for file in files:
            file.close()


def measure(name: str, backend: Backend, rounds: int) -> list[Row]:
    """The rows of one model."""
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    model: Any = open_clip.create_model(name)
    logging.disable(logging.NOTSET)
    visual = model.visual.eval().requires_grad_(False)
    config = visual.preprocess_cfg
    side = config["size"]
    size = PictureSize(*((side, side) if isinstance(side, int) else side))
    graph = ImageGraph(visual, config["mean"], config["std"]).eval()
    spec = TowerSpec(backend, "cuda", "bfloat16" if torch.cuda.is_bf16_supported() else "float16")
    tower = pytorch_tower(spec, graph, size, CpuShare.of(0, 0), max(BATCHES))
    dtype = getattr(torch, spec.precision)
    on_device = graph.converted(dtype, torch.device("cuda")).to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    pictures = [rng.bytes(size.height * size.width * 3) for _ in range(64)]

    bare_rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    ours: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    replays = {batch: bare(on_device, size, batch) for batch in BATCHES}
    for number in range(-1, rounds):  # the first warms up
        for batch, replay in replays.items():
            pair = bare_rate(replay, batch), our_rate(tower, pictures, batch)
            if number >= 0:
                bare_rates[batch].append(pair[0])
                ours[batch].append(pair[1])
    best = max(BATCHES, key=lambda batch: statistics.median(bare_rates[batch]))
    for batch in BATCHES:
        alone, with_ours = statistics.median(bare_rates[batch]), statistics.median(ours[batch])
        print(f"{name:<22} batch {batch:>3}: bare {alone:9.0f} images/s, ours {with_ours:9.0f}")
    against = statistics.median(bare_rates[best])
    ready = statistics.median(a / b for a, b in zip(ours[best], bare_rates[best], strict=True))
    decoded = asyncio.run(decoded_rate(tower, size, best)) / against
    tower.close()
    goal = GOAL if name in GOAL_MODELS else None
    label = f"{name}, {spec.name}, batch {best}"
    return [
        Row(f"{label}, ready pixels", ready, goal, goal is None or ready >= goal),
        Row(f"{label}, 320×240 JPEGs", decoded, None, True),
    ]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["cuda-graphs"],
        choices=["cuda-graphs", "compiled", "pytorch"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    check = os.environ.get("CHECK") == "1"
    if not torch.cuda.is_available():
        print("benchmarks.gpu: PyTorch finds no CUDA device on this machine")
        return 2 if check else 0
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    rows: list[Row] = []
    for name in options.models:
        for backend in options.backends:
            rows += measure(name, cast("Backend", backend), options.rounds)
            gc.collect()
            torch.cuda.empty_cache()
    for row in rows:
        goal = (
            "" if row.goal is None else f"  goal {row.goal:.2f}: {'met' if row.met else 'MISSED'}"
        )
        print(f"{row.row}: {row.measured:.3f} of the bare model{goal}")
    print(json.dumps({"benchmark": "gpu", "rows": [vars(row) for row in rows]}))
    return 1 if check and not all(row.met for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
