"""How figures are put into words, for text and HTML."""

from __future__ import annotations

from imagesafety.evaluation.intervals import Interval
from imagesafety.evaluation.mistakes import Mistake, Responsible
from imagesafety.evaluation.policy_figures import ExpectedPrecision
from imagesafety.evaluation.proportion import Proportion
from imagesafety.policy import Mode, Rule


def percent(share: float | None) -> str:
    """A share as a percentage with three digits that mean something."""
    if share is None:
        return "–"
    return "0 %" if share == 0 else f"{_digits(100 * share)} %"


def set_percent(share: float) -> str:
    """A share that somebody set, as a percentage."""
    return f"{100 * share:.10g} %"


def percents(interval: Interval) -> str:
    """An interval of shares."""
    low, high = (_digits(100 * value) if value else "0" for value in (interval.low, interval.high))
    return f"{low} to {high} %"


def counted(share: Proportion) -> str:
    """A share with its counts and its interval."""
    if not share.total:
        return "no images"
    return f"{percent(share.share)} ({share.count} of {share.total}; {percents(share.interval)})"


def expected_words(expected: ExpectedPrecision) -> str:
    """The precision to expect; where no false reject was seen, only its lower end."""
    if expected.precision is None:
        return "not known: nothing was rejected"
    if expected.is_only_bounded:
        return f"at least {percent(expected.interval.low)}"
    return percent(expected.precision)


def expected_note(expected: ExpectedPrecision) -> str:
    """For how many uploads that holds, and how sure it is."""
    where = f"where {expected.prevalence * 100_000:.3g} uploads in 100 000 are to be rejected"
    if expected.precision is None:
        return where
    if expected.is_only_bounded:
        return f"no false reject was seen, which shows no more, {where}"
    return f"{percents(expected.interval)}, {where}"


def rule_words(rule: Rule) -> str:
    """A rule's name, and whether it does something."""
    return f"{rule.name} (in shadow)" if rule.mode is Mode.SHADOW else rule.name


def where(mistake: Mistake) -> str:
    """The view that decides; empty for a picture that has one only, or where it is not known."""
    view = mistake.view
    if view is None or mistake.views <= 1:
        return ""
    left, top, width, height = view.region
    frame = f"frame {view.frame_index} at {view.frame_time:g} s, " if view.frame_time else ""
    return f"{frame}{width}×{height} pixels from ({left}, {top}), one of {mistake.views} views"


def responsible(found: Responsible) -> str:
    """A concept beside its threshold."""
    sign = "≥" if found.reaches else "<"
    critical = "critical " if found.critical else ""
    return f"{found.concept} {found.similarity:.4f} {sign} {critical}{found.threshold:g}"


def _digits(value: float) -> str:
    if abs(value) >= 0.0001:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.2g}"
