"""Which candidate is taken, as pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.backends.tower import Precision

TIE = 1.15
"""Who is faster by less than this is not faster: that much differs between two runs."""

LEAST_COSINE: dict[Precision, float] = {
    "float32": 0.999,
    "bfloat16": 0.999,
    "float16": 0.999,
    "int8": 0.99,
}

Rates = Mapping[int, float]
"""Images a second by batch size."""

FINALISTS = 3
WITHIN = 1.6
"""Who is slower than the fastest by more than this at first is not measured again."""


@dataclass(frozen=True)
class Trial:
    """What was found out about a candidate."""

    name: str
    rates: Rates
    cosine: float | None = None
    """The least one to the reference, over the calibration pictures."""
    refused: str = ""
    """Why it can't be taken; empty if it can."""

    @property
    def best_rate(self) -> float:
        """Images a second at its best batch."""
        return max(self.rates.values(), default=0.0)


def refusal(precision: Precision, cosine: float, changed_verdicts: int) -> str:
    """Why embeddings are too far from the reference's; empty if they aren't."""
    if not cosine >= LEAST_COSINE[precision]:  # also for NaN
        return f"cosine under {LEAST_COSINE[precision]}"
    if changed_verdicts:
        return f"changes {changed_verdicts} verdicts"
    return ""


def choose(trials: Sequence[Trial]) -> Trial:
    """The first of those that are no slower than the fastest by more than a tie.

    `trials` are in order of preference, the most exact and simplest first. Raises ValueError if
    all are refused.
    """
    usable = [trial for trial in trials if not trial.refused]
    if not usable:
        raise ValueError("no candidate can be used")
    fastest = max(trial.best_rate for trial in usable)
    return next(trial for trial in usable if trial.best_rate * TIE >= fastest)


def finalists(trials: Sequence[Trial]) -> list[Trial]:
    """Those of which one may well be the fastest: they are measured once more, in turns."""
    usable = sorted(
        (trial for trial in trials if not trial.refused), key=lambda trial: -trial.best_rate
    )
    return [trial for trial in usable if trial.best_rate * WITHIN >= usable[0].best_rate][
        :FINALISTS
    ]


def table(trials: Sequence[Trial], chosen: Trial) -> list[str]:
    """The lines that the log shows."""
    sizes = sorted({size for trial in trials for size in trial.rates})
    width = max(len(trial.name) for trial in trials)
    head = "".join(f"{size:>8}" for size in sizes)
    lines = [f"{'images/s at batch':<{width}}{head}  cosine"]
    for trial in trials:
        rates = "".join(
            f"{trial.rates[size]:8.1f}" if size in trial.rates else " " * 8 for size in sizes
        )
        cosine = "      -" if trial.cosine is None else f"{trial.cosine:.5f}"
        verdict = "chosen" if trial is chosen else trial.refused or "not faster"
        if verdict == "not faster" and trial.best_rate > chosen.best_rate:
            verdict = "faster by less than 15 %"
        lines.append(f"{trial.name:<{width}}{rates}  {cosine}  {verdict}")
    return lines
