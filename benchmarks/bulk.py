"""Whether bulk work keeps the service saturated: `make bench-bulk`.

ViT-B-32 with random weights. Every round scores a folder of files, no two of them alike, in each of
these ways: BulkScorer with files that are in memory, BulkScorer that reads them, `imagesafety
evaluate` and `imagesafety scan`, each with an empty cache. Before and after each is the load of the
batching benchmark: ready bytes over ScoreImage, 64 at once. Ratios are taken between neighbours.

Before each is a pause: for a while after uploads, the service keeps decoders for further ones. That
is a part of a round here, and none of a scan that takes hours.

All are measured by what the service counts, from a tenth of the images to nine tenths: what a
command needs for its start and its end is no throughput. Clients share the cores with the service.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from benchmarks.serving.command import options, rounds, run
from benchmarks.serving.material import FOLDER, LARGE, ROOT, SMALL, model, model_flags, pictures
from benchmarks.serving.material import policy as policy_file
from benchmarks.serving.processes import BenchmarkError, Worker, inference, worker
from benchmarks.serving.report import Figures, Report, Row, at_least
from inference.work_queue import UPLOADS_COME
from tests.e2e.processes import fetch, free_port

GOAL = 0.95
READY = "ScoreImage, ready bytes, c=64"
STREAM = "ScoreImages, ready bytes, c=64"
CLIENT_READY, CLIENT = "BulkScorer, ready bytes", "BulkScorer, files"
EVALUATE, SCAN = "imagesafety evaluate", "imagesafety scan"
HELD = (CLIENT, EVALUATE, SCAN)
CONCURRENCY = 64
_LOOK_SECONDS = 0.2
_FIRST, _LAST = 0.1, 0.9  # of the images: what is before and after is not measured
_LEAST_FILES = 300
_SCORED = re.compile(r'^imagesafety_images_total\{outcome="scored",reason=""\} (\S+)$', re.M)


@dataclass
class Counted:
    """How many images the service had scored, and when, until `over`."""

    metrics: str
    samples: list[tuple[float, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Looks again and again."""
        last = False
        while True:
            _, page = fetch(f"http://{self.metrics}/metrics")
            found = _SCORED.search(page)
            self.samples.append((time.perf_counter(), float(found[1]) if found else 0.0))
            if last:
                return
            last = self.over.wait(_LOOK_SECONDS)

    def rate(self) -> float:
        """Images a second, between the first tenth and the last one."""
        start, end = self.samples[0][1], self.samples[-1][1]
        first, last = (start + share * (end - start) for share in (_FIRST, _LAST))
        inside = [(at, count) for at, count in self.samples if first <= count <= last]
        (begin, before), (finish, after) = inside[0], inside[-1]
        if finish <= begin:
            raise BenchmarkError(f"{end - start:.0f} images are too few to measure a rate")
        return (after - before) / (finish - begin)


@dataclass(frozen=True)
class Bench:
    """What is measured, and by whom."""

    report: Report
    load: Worker
    target: str
    metrics: str
    policy: Path

    def measured(self, what: str, work: Callable[[], None]) -> Figures:
        """One sample: the rate at which the service scores images while the work is done."""
        counted = Counted(self.metrics)
        watching = threading.Thread(target=counted.watch)
        before = os.times()
        watching.start()
        try:
            work()
        finally:
            counted.over.set()
            watching.join()
        after = os.times()
        images = counted.samples[-1][1] - counted.samples[0][1]
        cpu = sum(after[2:4]) - sum(before[2:4])  # of a command that was run
        figures = {"images_per_second": counted.rate(), "images": images}
        return self.report.add(what, {**figures, "client cpu ms": cpu / images * 1000})

    def loaded(self, what: str, path: str, kind: str, seconds: float) -> Figures:
        """Ready bytes, as the batching benchmark sends them."""

        def load() -> None:
            self.load.ask(
                path=path,
                target=self.target,
                files=kind,
                concurrency=CONCURRENCY,
                seconds=seconds / (_LAST - _FIRST),
            )

        return self.measured(what, load)

    def command(self, what: str, way: str, folder: Path) -> Figures:
        """A command over a folder, from its start to its end."""
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", *self._arguments(way, folder, Path(scratch))]

            def work() -> None:
                ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
                if ended.returncode:
                    tail = "\n".join(ended.stderr.splitlines()[-5:])
                    raise BenchmarkError(f"{what} ended with {ended.returncode}:\n{tail}")

            return self.measured(what, work)

    def _arguments(self, way: str, folder: Path, scratch: Path) -> list[str]:
        client = ["benchmarks.bulk_client", str(folder), self.target]
        command = ["imagesafety.command", way.removeprefix("imagesafety "), str(folder)]
        command += ["--policy", str(self.policy), "--inference", self.target]
        return {
            CLIENT_READY: [*client, "--ready"],
            CLIENT: client,
            EVALUATE: [*command, "--cache", str(scratch / "scores.sqlite3")],
            SCAN: [*command, "--state", str(scratch / "state.sqlite3")],
        }[way]


@contextlib.contextmanager
def files(kind: str, count: int) -> Iterator[Path]:
    """A folder of so many files of a kind, with other bytes each."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bulk-", dir=FOLDER))
    try:
        drawn = pictures(kind)
        for number in range(count):
            path = folder / "accept" / f"{number // 1000:03}" / f"{number:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            # What follows a JPEG's end makes other bytes, and no other picture.
            path.write_bytes(drawn[number % len(drawn)] + f"file {number}".encode())
        yield folder
    finally:
        shutil.rmtree(folder)


def compare(bench: Bench, kind: str, folder: Path, ways: Sequence[str], seconds: float) -> None:
    """One round: every way between two measurements with ready bytes."""
    before = bench.loaded(f"{READY}, {kind}", "ScoreImage", kind, seconds)
    for way in ways:
        what = f"{way}, {kind}"
        time.sleep(UPLOADS_COME)
        if way == STREAM:
            figures = bench.loaded(what, "ScoreImages", kind, seconds)
        else:
            figures = bench.command(what, way, folder)
        after = bench.loaded(f"{READY}, {kind}", "ScoreImage", kind, seconds)
        neighbours = fmean(one["images_per_second"] for one in (before, after))
        share = figures["images_per_second"] / neighbours
        bench.report.add(f"{what} / ready bytes", {"ratio": share})
        before = after


def rows(report: Report, kinds: Sequence[str], ways: Sequence[str]) -> list[Row]:
    """What is held against the goal first."""
    ordered = sorted(ways, key=lambda way: way not in HELD)
    return [
        at_least(
            f"{way}, {kind}, against ready bytes",
            report.values(f"{way}, {kind} / ready bytes", "ratio"),
            GOAL if way in HELD else None,
        )
        for way in ordered
        for kind in kinds
    ]


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    report = Report("bulk", vars(arguments))
    metrics = f"127.0.0.1:{free_port()}"
    flags = [*model_flags(), "--backend", arguments.backend, "--metrics-listen", metrics]
    kinds = arguments.kinds
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(inference(*flags))
        load = stack.enter_context(worker("grpc client", "benchmarks.serving.load", "grpc"))
        bench = Bench(report, load, service.address, metrics, policy_file(model(), "policy"))
        folders = {}
        for kind in kinds:
            warm = bench.loaded(f"warm-up, {kind}", "ScoreImage", kind, arguments.seconds)
            count = warm["images_per_second"] * arguments.seconds / (_LAST - _FIRST)
            folders[kind] = stack.enter_context(files(kind, max(_LEAST_FILES, int(count))))
        for _ in rounds(arguments.rounds):
            for kind in kinds:
                compare(bench, kind, folders[kind], arguments.ways, arguments.seconds)
    return report.finish(rows(report, kinds, arguments.ways))


if __name__ == "__main__":
    parser = options(__doc__)
    parser.set_defaults(seconds=10.0)
    parser.add_argument("--backend", default="auto", help="what the service runs on")
    parser.add_argument("--kinds", nargs="+", default=[SMALL, LARGE], help="of files")
    parser.add_argument("--ways", nargs="+", default=[STREAM, CLIENT_READY, CLIENT, EVALUATE, SCAN])
    chosen = parser.parse_args()
    sys.exit(run(lambda: main(chosen)))
