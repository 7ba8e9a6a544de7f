"""Images a second by concurrency, one panel for each kind of file, as a PNG."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

from benchmarks.serving.comparison import KINDS, PATHS, name
from benchmarks.serving.report import Report


def draw(report: Report, concurrencies: Sequence[int], path: Path) -> None:
    """Medians with their spread, and the bare encoder as a line."""
    figure, panels = pyplot.subplots(1, len(KINDS), figsize=(10, 4), sharey=True)
    for panel, kind in zip(panels, KINDS, strict=True):
        for way in PATHS:
            rates = [report.values(name(way, kind, c), "images_per_second") for c in concurrencies]
            middle = [statistics.median(values) for values in rates]
            below = [m - min(values) for m, values in zip(middle, rates, strict=True)]
            above = [max(values) - m for m, values in zip(middle, rates, strict=True)]
            panel.errorbar(concurrencies, middle, (below, above), marker="o", capsize=3, label=way)
        bare = statistics.median(report.values(f"bare, {kind}", "images_per_second"))
        panel.axhline(bare, color="black", linestyle="--", label="bare encoder, best batch")
        panel.set_xscale("log", base=2)
        panel.set_xticks(concurrencies, [str(c) for c in concurrencies])
        panel.set_ylim(bottom=0)
        panel.set_xlabel("in flight")
        panel.set_title(f"JPEGs of {kind}")
    panels[0].set_ylabel("images a second")
    panels[0].legend()
    figure.suptitle(str(report.facts.get("backend", "")))
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
