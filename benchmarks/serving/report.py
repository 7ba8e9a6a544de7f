"""What a benchmark prints and writes: samples as they come, then measured against goal."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.serving.material import ROOT

RESULTS = ROOT / "benchmarks" / "results"
_VERSIONS = (
    *("grpcio", "numpy", "onnxruntime", "open_clip_torch", "openvino", "pillow"),
    *("starlette", "torch", "uvicorn", "uvloop"),
)

_COUNTS = ("images", "calls")  # not worth a place in the summary

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One figure of the report: median, least and greatest over the rounds, and its goal."""

    row: str
    measured: float
    goal: float | None
    met: bool
    low: float
    high: float

    def __str__(self) -> str:
        text = f"{self.row:<64} {self.measured:8.3f}  ({self.low:.3f} to {self.high:.3f})"
        if self.goal is None:
            return text
        return f"{text}  goal {self.goal:g}: {'met' if self.met else 'MISSED'}"


def at_least(row: str, values: Sequence[float], goal: float | None = None) -> Row:
    """A row whose median should be at or over the goal."""
    median = statistics.median(values)
    return Row(row, median, goal, goal is None or median >= goal, min(values), max(values))


def at_most(row: str, values: Sequence[float], goal: float) -> Row:
    """A row whose median should be at or under the goal."""
    median = statistics.median(values)
    return Row(row, median, goal, median <= goal, min(values), max(values))


class Report:
    """Collects the samples of a run, by what was measured."""

    def __init__(self, benchmark: str, options: Mapping[str, object]) -> None:
        self.benchmark = benchmark
        self.samples: dict[str, list[dict[str, float]]] = {}
        self.facts: dict[str, object] = {}
        self._options = dict(options)
        self._date = datetime.datetime.now(datetime.UTC)
        print(f"{benchmark}: {_cpu_model()}, {_cores()} cores", flush=True)

    def note(self, name: str, value: object) -> None:
        """A fact about the run that is no sample."""
        self.facts[name] = value
        print(f"{name}: {value}", flush=True)

    def add(self, what: str, figures: Figures) -> Figures:
        """One sample."""
        self.samples.setdefault(what, []).append(dict(figures))
        shown = "  ".join(_shown(name, [value]) for name, value in figures.items())
        print(f"  {what:<36} {shown}", flush=True)
        return figures

    def values(self, what: str, figure: str) -> list[float]:
        """A figure of all samples of this."""
        return [sample[figure] for sample in self.samples[what]]

    def finish(self, rows: Sequence[Row]) -> int:
        """Prints and writes everything; the exit code."""
        print("\nmedian (least to greatest)")
        for what, samples in self.samples.items():
            shown = (
                _shown(name, [sample[name] for sample in samples])
                for name in samples[0]
                if name not in _COUNTS
            )
            print(f"  {what:<36} {'  '.join(shown)}")
        print("\nmeasured against goal: median (least to greatest) over rounds")
        for row in rows:
            print(f"  {row}")
        self._write(rows)
        summary = {"benchmark": self.benchmark, "rows": [asdict(row) for row in rows]}
        print(json.dumps(summary), flush=True)
        return 0 if all(row.met for row in rows) or os.environ.get("CHECK") != "1" else 1

    def _write(self, rows: Sequence[Row]) -> None:
        content = {
            "benchmark": self.benchmark,
            "date": self._date.isoformat(timespec="seconds"),
            "hardware": {"cpu": _cpu_model(), "cores": _cores(), "system": platform.platform()},
            "versions": {"python": platform.python_version(), **_versions()},
            "options": self._options,
            "facts": self.facts,
            "rows": [asdict(row) for row in rows],
            "samples": self.samples,
        }
        RESULTS.mkdir(exist_ok=True)
        path = self.path(".json")
        path.write_text(json.dumps(content, indent=1, default=str) + "\n")
        print(f"\nwritten: {path.relative_to(ROOT)}")

    def path(self, suffix: str) -> Path:
        """A file of this report."""
        return RESULTS / f"{self.benchmark}{suffix}"


def _shown(name: str, values: Sequence[float]) -> str:
    """A figure, with its spread if there are several."""
    median = _rounded(statistics.median(values))
    if len(values) == 1:
        return f"{name} {median}"
    return f"{name} {median} ({_rounded(min(values))} to {_rounded(max(values))})"


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
