"""What the fence around the decoders costs: `python -m benchmarks.decode`.

Decodes files of every type in this process and through the pool of decoder processes, in turns,
and prints milliseconds a file; then images a second through pools of one and of two processes, and
through pebble's pool, which would be the kept library for it. Each measurement goes through eight
different files, so that neither side finds its input in a cache. The last line is JSON; with
CHECK=1 in the environment a missed goal makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pebble import ProcessPool
from PIL import Image

from inference.decoder.decode import Decoder
from inference.decoder.media import MediaLimits, Preprocessing, Request
from inference.decoder.protocol import WorkerSettings
from inference.decoder_pool import DecoderPool
from inference.demo.drawing import random_scene, render
from inference.shared_file import SharedFile
from inference.work_queue import Priority
from tests.media import MOVING, moving, still

FILES = 8
IN_FLIGHT = 8
STILLS = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/jxl", "image/gif")
GOAL_ADDED_MS, GOAL_ADDED_SHARE = 1.0, 0.1  # whichever is more
GOAL_SPEEDUP = 1.8
CLIP = Preprocessing(224, 224, "shortest", "bicubic", 0)
LIMITS = MediaLimits(max_pixels=40_000_000, max_frames=10_000, max_seconds=3600)
SETTINGS = WorkerSettings(CLIP, LIMITS, 2 * 1024**3, 60, filtered=True)
REQUEST = Request("", max_frames=16, frame_seconds=60)


@dataclass(frozen=True)
class Row:
    """One figure of the report, and the goal that it is held to, if any."""

    row: str
    measured: float
    goal: float | None
    met: bool


def photo(seed: int, width: int = 1600, height: int = 1200) -> Image.Image:
    """A picture with the detail of a photo: a drawing under noise of several sizes."""
    rng = np.random.default_rng(seed)
    picture = np.asarray(render(random_scene(rng, aspect=width / height), width, height), float)
    for share in (0.05, 0.2):
        size = (round(height * share), round(width * share), 3)
        noise = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
        picture += 0.25 * np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) - 32
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def files_of(kind: str) -> list[bytes]:
    """Files of 1600×1200, or (`kind` being a type and "moving") of 30 frames of 480×360."""
    media_type, _, moves = kind.partition(" ")
    if not moves:
        options = {"quality": 90} if media_type == "image/jpeg" else {}
        options |= {"speed": 9} if media_type == "image/avif" else {}
        return [still(photo(seed), media_type, **options) for seed in range(FILES)]
    frames = [photo(seed, 480, 360) for seed in range(30)]
    return [moving(frames[seed:] + frames[:seed], media_type) for seed in range(3)]


def decode_directly(data: bytes) -> bytes:
    """Decodes a file in this process; the pixels of its views."""
    decoder = Decoder(CLIP, LIMITS, random.Random(0))  # noqa: S311
    return b"".join(decoder.decode(data, REQUEST).pixels)


@contextlib.asynccontextmanager
async def fence(workers: int) -> AsyncIterator[Callable[[SharedFile], Awaitable[bytes]]]:
    """A pool, and the function that decodes through it."""
    pool = DecoderPool(SETTINGS, workers=workers, max_queue=1000, max_views=10_000)
    await pool.start()

    async def decode(file: SharedFile) -> bytes:
        async with pool.decoded(
            file, REQUEST, priority=Priority.BULK, deadline=float("inf")
        ) as media:
            return b"".join(media.pixels)

    try:
        yield decode
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def pebble(workers: int) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """The same with pebble, as kindly as it goes: nothing but bytes is pickled."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=workers, context=context)
    try:
        yield lambda data: asyncio.wrap_future(pool.schedule(decode_directly, (data,), timeout=60))
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        await asyncio.to_thread(pool.join)


def shared(data: bytes) -> SharedFile:
    """The file as an upload is kept: there is no other copy of it in the service."""
    file = SharedFile("benchmark")
    file.append(data)
    return file


async def added_by_the_fence(kind: str, rounds: int) -> list[Row]:
    """Milliseconds a file, directly and through the fence, in turns."""
    files = files_of(kind)
    uploads = [shared(data) for data in files]
    direct: list[float] = []
    fenced: list[float] = []
    async with fence(1) as decode:
        for number in range(-2, rounds):
            for data, upload in zip(files, uploads, strict=True):
                start = time.perf_counter()
                pixels = decode_directly(data)
                middle = time.perf_counter()
                again = await decode(upload)
                end = time.perf_counter()
                if len(pixels) != len(again):
                    raise AssertionError(kind)
                if number >= 0:
                    direct.append((middle - start) * 1000)
                    fenced.append((end - middle) * 1000)
    for upload in uploads:
        upload.close()
    before, after = statistics.median(direct), statistics.median(fenced)
    allowed = max(GOAL_ADDED_MS, GOAL_ADDED_SHARE * before)
    # Of pairs that follow each other: the machine's speed drifts by more than this.
    added = statistics.median(b - a for a, b in zip(direct, fenced, strict=True))
    size = statistics.mean(map(len, files)) / 1000
    print(f"{kind:<17} {size:7.0f} kB  {before:8.2f} {after:8.2f}  {added:+6.2f}", flush=True)
    if kind != "image/jpeg":
        return []
    return [Row("ms added to a 1600×1200 JPEG", added, allowed, added <= allowed)]


async def rate(decode: Callable[[int], Awaitable[bytes]], images: int) -> float:
    """Images a second, with eight in flight."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> None:
        async with gate:
            await decode(number % FILES)

    start = time.perf_counter()
    await asyncio.gather(*map(one, range(images)))
    return images / (time.perf_counter() - start)


async def throughput(rounds: int) -> list[Row]:
    """Images a second of one and two processes, ours and pebble's, in turns."""
    files = files_of("image/jpeg")
    uploads = [shared(data) for data in files]
    rates: dict[str, list[float]] = {}
    async with fence(1) as one, fence(2) as two, pebble(1) as pebble1, pebble(2) as pebble2:
        ways: dict[str, Callable[[int], Awaitable[bytes]]] = {
            "fence, 1 process": lambda number: one(uploads[number]),
            "fence, 2 processes": lambda number: two(uploads[number]),
            "pebble, 1 process": lambda number: pebble1(files[number]),
            "pebble, 2 processes": lambda number: pebble2(files[number]),
        }
        for number in range(-1, rounds):
            for name, way in ways.items():
                measured = await rate(way, 160)
                if number >= 0:
                    rates.setdefault(name, []).append(measured)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in medians.items():
        print(f"{name:<20} {value:7.1f} images/s", flush=True)
    ratios = [b / a for a, b in zip(*list(rates.values())[:2], strict=True)]
    speedup = statistics.median(ratios)
    lost = [
        1 - medians[f"pebble, {count}"] / medians[f"fence, {count}"]
        for count in ("1 process", "2 processes")
    ]
    return [
        Row("two processes against one", speedup, GOAL_SPEEDUP, speedup >= GOAL_SPEEDUP),
        Row("share lost by pebble, 1 process", lost[0], None, True),
        Row("share lost by pebble, 2 processes", lost[1], None, True),
    ]


async def run(kinds: Sequence[str], rounds: int) -> list[Row]:
    """The whole report."""
    print(f"{'':<29} {'direct':>8} {'fenced':>8}  {'added':>6}   median ms a file")
    rows = [row for kind in kinds for row in await added_by_the_fence(kind, rounds)]
    return rows + await throughput(rounds)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--types", nargs="+", default=[*STILLS, *(f"{kind} moving" for kind in MOVING)]
    )
    options = parser.parse_args()
    rows = asyncio.run(run(options.types, options.rounds))
    for row in rows:
        goal = (
            "" if row.goal is None else f"  goal {row.goal:.2f}: {'met' if row.met else 'MISSED'}"
        )
        print(f"{row.row}: {row.measured:.2f}{goal}")
    print(json.dumps({"benchmark": "decode", "rows": [vars(row) for row in rows]}))
    return 0 if all(row.met for row in rows) or os.environ.get("CHECK") != "1" else 1


if __name__ == "__main__":
    sys.exit(main())
