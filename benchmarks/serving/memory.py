"""How much memory many large images in flight take, and how much they may."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.material import LARGE
from benchmarks.serving.processes import Service, Worker, inference
from benchmarks.serving.report import Report, Row, at_most
from inference.settings import load_settings

IMAGES = 1000
_EVERY_SECONDS = 0.1
_MB = 1e6


@dataclass
class Peak:
    """The most memory that a service and its children had, until `stop`."""

    pids: list[int]
    bytes: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Looks again and again."""
        while True:
            self.bytes = max(self.bytes, memory_of(self.pids))
            if self.over.wait(_EVERY_SECONDS):
                return


@contextlib.contextmanager
def peak_of(service: Service) -> Iterator[Peak]:
    """Watches a service during the block."""
    peak = Peak(service.pids)
    thread = threading.Thread(target=peak.watch)
    thread.start()
    try:
        yield peak
    finally:
        peak.over.set()
        thread.join()


def memory_of(pids: list[int]) -> int:
    """What the processes have in memory: their own pages, and the memfds that they hold.

    A memfd that is read and not mapped is in no process's resident set.
    """
    total = 0
    files: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_File:")):
                    total += int(line.split()[1]) * 1024
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()).startswith("/memfd:"):
                        found = descriptor.stat()
                        files[found.st_ino] = found.st_blocks * 512
    return total + sum(files.values())


def measure(report: Report, flags: list[str], load: Worker, runs: int) -> Row:
    """All images at once, against what the settings allow."""
    flags = [*flags, "--max-images", str(IMAGES), "--max-queue", str(IMAGES)]
    bound = _bound(report, flags)
    grown: list[float] = []
    for _ in range(runs):
        with inference(*flags) as service:
            command = {"path": "ScoreImage", "target": service.address, "files": LARGE}
            load.ask(**command, concurrency=4, seconds=1)
            before = memory_of(service.pids)
            with peak_of(service) as peak:
                figures = load.ask(**command, at_once=IMAGES)
            service.check()
        grown.append((peak.bytes - before) / _MB)
        figures["loaded MB"], figures["grown MB"] = before / _MB, grown[-1]
        report.add(f"{IMAGES} × {LARGE} at once", figures)
    return at_most(f"MB above the loaded model, {IMAGES} × {LARGE} in flight", grown, bound / _MB)


def _bound(report: Report, flags: list[str]) -> int:
    """What the settings allow, as docs/architecture.md says; decoders would come on top."""
    settings = load_settings(flags)
    view = 224 * 224 * 3
    views = 4 * settings.max_queue * view
    report.note(
        "memory bound",
        f"max_bytes_in_flight {settings.max_bytes_in_flight / _MB:.0f} MB + 4 × max_queue "
        f"({settings.max_queue}) views {views / _MB:.0f} MB; the decoders may take "
        f"{settings.decoders} × decode_memory {settings.decode_memory / _MB:.0f} MB more, which is "
        "left out here",
    )
    return settings.max_bytes_in_flight + views
