"""The table of candidates for better scores, for people."""

from __future__ import annotations

from collections.abc import Iterator

from imagesafety.calibration.better_scores import Comparison, Improvement
from imagesafety.calibration.comparison import RATES, Kind, Outcome
from imagesafety.evaluation.proportion import Proportion

_WIDTH = max(len(kind) for kind in Kind)


def comparison_lines(improvement: Improvement) -> Iterator[str]:
    """How each concept's candidates did, and which is kept."""
    rates = "".join(f"{f'found at {rate:g}':>18}" for rate in RATES)
    yield f"  {'':<{_WIDTH}}   {'AUC (95 %)':<22}{rates}   gain of AUC"
    for comparison in improvement.comparisons:
        yield from _concept(comparison)
    yield (
        "AUC is the chance that an image that shows it scores higher than one that doesn't; found "
        "is the share of those that show it, where that share of the others is too."
    )
    yield from (f"note: {note}" for note in improvement.notes)


def _concept(comparison: Comparison) -> Iterator[str]:
    if comparison.problem:
        yield f"{comparison.concept}: stays as it is, {comparison.problem}"
        return
    learned, held_out = (
        f"{showing} and {others}" for showing, others in (comparison.learned, comparison.held_out)
    )
    yield (
        f"{comparison.concept}: learned from {learned} images that show it and don't, by labels of "
        f"{comparison.source}; compared on {held_out} others"
    )
    for outcome in comparison.outcomes:
        yield _candidate(outcome, is_kept=outcome.kind is comparison.kept)


def _candidate(outcome: Outcome, *, is_kept: bool) -> str:
    found = outcome.separation
    auc = f"{found.auc:.4f} ({found.interval.low:.4f}–{found.interval.high:.4f})"
    recalls = "".join(f"{_share(recall):>18}" for recall in outcome.recalls)
    line = f"  {outcome.kind:<{_WIDTH}}   {auc:<22}{recalls}   {_gain(outcome)}"
    return f"{line}{'kept' if is_kept else ''}".rstrip()


def _share(recall: Proportion | None) -> str:
    if recall is None:
        return "too few to say"
    return f"{100 * (recall.share or 0):.1f} %"


def _gain(outcome: Outcome) -> str:
    if outcome.gain is None:
        return f"{'':<32}"
    parts = [f"{outcome.gain.difference:+.4f} (p = {outcome.gain.chance:.2g})"]
    parts += [f"worse at {rate:g}" for rate in outcome.worse_at]
    return f"{', '.join(parts):<32}"


def kept_lines(improvement: Improvement) -> Iterator[str]:
    """What becomes of the policy."""
    better = [one.concept for one in improvement.comparisons if one.kept is not Kind.RAW]
    if not better:
        yield "Nothing is better beyond noise, so all scores stay as they are."
        return
    yield f"Better scores for {', '.join(better)}. {_THRESHOLDS}"


_THRESHOLDS = (
    "Thresholds are set by images to be accepted that had no say in these; images to be rejected "
    "had a say in which scores were kept, so false accepts may be a little more than counted."
)
