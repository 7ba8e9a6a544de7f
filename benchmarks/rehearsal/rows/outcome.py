"""Lines of the table that every row with uploads has."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.rehearsal.checker import UNSCANNED, Verdict
from benchmarks.rehearsal.history import quantile, spans
from benchmarks.rehearsal.stage import BUDGET_SECONDS, Stage
from benchmarks.rehearsal.table import Line, at_most, told

# What a gateway keeps for writing the answer, and a little for the clocks: a row that took longer
# than the rest has used its budget up.
_MARGIN_SECONDS = 0.5


def load_line(row: str, it: Stage) -> Line:
    """What was played."""
    share = f"{it.plan.share:.0%} of {it.capacity:.0f} uploads/s"
    fleet = f"{it.plan.gateways} gateway(s), {it.plan.replicas} replicas"
    return told(row, "load", f"{it.rate:.0f} uploads/s ({share}), {fleet}")


def history_lines(row: str, verdict: Verdict) -> Iterator[Line]:
    """What the checker says."""
    for violation in verdict.violations[:5]:
        print(f"  {row}: {violation}", flush=True)
    counts = f"{len(verdict.violations)} of {verdict.sent} ({verdict.scored} scored)"
    what = "uploads without exactly one end and row, or with a wrong score"
    yield Line(row, what, "0", counts, not verdict.violations)
    failed = ", ".join(f"{count} {how}" for how, count in verdict.failed.items())
    measured = f"{verdict.lost} of {verdict.sent}" + (f" ({failed})" if failed else "")
    yield Line(row, "failed uploads, connection errors among them", "0", measured, not verdict.lost)


def unscanned_line(row: str, it: Stage, verdict: Verdict) -> Line:
    """Uploads that nobody looked at although there was time; those out of budget are told."""
    unscanned = [one for one in it.rows if one.cause in UNSCANNED]
    late = sum(
        one.cause == "deadline" and one.total_ms >= 1000 * (BUDGET_SECONDS - _MARGIN_SECONDS)
        for one in unscanned
    )
    early = len(unscanned) - late
    why = f": {it.unscanned_causes()}" if unscanned else ""
    measured = f"{early} of {verdict.sent}, and {late} out of budget{why}"
    return Line(row, "unscanned within the budget", "0", measured, not early)


def latency_lines(row: str, it: Stage) -> Iterator[Line]:
    """How long uploads under the load took."""
    taken = [span.seconds for span in spans(it.history.events, it.begun)]
    yield at_most(row, "p99 of uploads under load", quantile(taken, 0.99), BUDGET_SECONDS, " s")
    median, most = quantile(taken, 0.5), max(taken, default=0.0)
    yield told(row, "p50 and longest", f"{1000 * median:.0f} ms, {most:.2f} s")
