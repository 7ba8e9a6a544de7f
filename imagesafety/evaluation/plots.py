"""Plots of a concept's curves, as SVG."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imagesafety.evaluation.curves import Curve

_METADATA = {"Date": None, "Creator": None}
_COLOUR = "#1668b8"


def roc_plot(curve: Curve) -> str:
    """Recall over the false-reject rate, which is logarithmic: its small end is what matters."""
    least = 1 / curve.negatives
    figure, axes = _figure("false-reject rate", "recall")
    # On this axis a rate of 0 has no place but below the least one that can be measured.
    rates = np.maximum(np.concatenate(([0.0], curve.false_rejects)), least / 2)
    axes.plot(rates, np.concatenate(([0.0], curve.recall)), color=_COLOUR, drawstyle="steps-post")
    chance = np.geomspace(least / 2, 1, 100)
    axes.plot(chance, chance, color="#888888", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(least / 2, 1)
    axes.axvspan(least / 2, least, color="#888888", alpha=0.2, linewidth=0)
    return _svg(figure)


def precision_recall_plot(curve: Curve) -> str:
    """Precision over recall, at the prevalence of the evaluated images."""
    figure, axes = _figure("recall", "precision")
    axes.plot(curve.recall, curve.precision, color=_COLOUR, drawstyle="steps-pre")
    axes.axhline(
        curve.positives / (curve.positives + curve.negatives),
        color="#888888",
        linestyle=":",
        linewidth=1,
    )
    axes.set_xlim(0, 1.01)
    return _svg(figure)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9})


def _figure(across: str, up: str) -> tuple[Figure, Axes]:
    with _style():
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_ylim(0, 1.01)
        axes.grid(True, color="#888888", alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Without a ground: the page inverts the colours where it is dark."""
    text = io.StringIO()
    with _style():
        figure.savefig(text, format="svg", transparent=True, metadata=_METADATA)
    return text.getvalue()
