"""What the gateway counts, in Prometheus's terms. docs/metrics.md says what each one means."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from gateway.decision import Decision
from gateway.ledger.record import Timings

disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 6, 8, 16)
_STAGES = ("upload", "score", "decode", "encode")  # of Timings
_WRITE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2)


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._decisions = self._counter(
            "imagesafety_decisions_total",
            "Uploads answered, by decision, cause and rule.",
            ("decision", "cause", "rule"),
        )
        self._flagged = self._counter(
            "imagesafety_flagged_total", "Uploads accepted for review, by rule.", ("rule",)
        )
        self._shadow = self._counter(
            "imagesafety_shadow_total",
            "Uploads accepted only because of shadow mode, by what they would have been and rule.",
            ("action", "rule"),
        )
        self._unscanned = self._counter(
            "imagesafety_unscanned_total", "Uploads accepted without scores, by cause.", ("cause",)
        )
        self._refused = self._counter(
            "imagesafety_refused_requests_total",
            "Requests that were no upload to decide on, by HTTP status.",
            ("status",),
        )
        self._repeats = self._counter(
            "imagesafety_repeats_total",
            "Uploads whose scores were there already, by where: memory, ledger or flight.",
            ("source",),
        )
        self._retries = self._counter(
            "imagesafety_retries_total",
            "Calls made again, or not, by why the one before failed (unavailable, overload, error) "
            "and outcome: answered, failed, or no retry: not_kept, throttled, too_late, given_up.",
            ("reason", "outcome"),
        )
        self._hedges = self._counter(
            "imagesafety_hedges_total",
            "Second calls beside one that took long, by outcome: won or lost.",
            ("outcome",),
        )
        self._rows = self._counter(
            "imagesafety_ledger_rows_total",
            "Decisions recorded, by where: database, spool or nowhere (lost).",
            ("stored",),
        )
        self._reloads = self._counter(
            "imagesafety_policy_reloads_total",
            "New policy files, by outcome: taken or refused.",
            ("outcome",),
        )
        self._deliveries = self._counter(
            "imagesafety_webhook_attempts_total",
            "Webhooks posted, by outcome: delivered, failed or given_up.",
            ("outcome",),
        )
        self._rescans = self._counter(
            "imagesafety_rescans_total",
            "Unscanned files looked at afterwards, by outcome: accept, reject, gone or failed.",
            ("outcome",),
        )
        for counter, values in (
            (self._unscanned, ("overload", "unavailable", "deadline", "error")),
            (self._rows, ("database", "spool", "nowhere")),
            (self._reloads, ("taken", "refused")),
            (self._deliveries, ("delivered", "failed", "given_up")),
        ):
            for value in values:  # a counter that begins at 1 has not increased, for an alert
                counter.labels(value)
        self.spooled = Gauge(
            "imagesafety_ledger_spooled_rows",
            "Decisions that wait in the spool for the database.",
            registry=self.registry,
        )
        self.overrides = Gauge(
            "imagesafety_overrides", "Overrides in force.", registry=self.registry
        )
        self.uploads_in_flight = Gauge(
            "imagesafety_uploads_in_flight",
            "Uploads that came and are not answered yet.",
            registry=self.registry,
        )
        self._bytes = Counter(
            "imagesafety_upload_bytes_total",
            "Bytes read of the uploads that were answered.",
            registry=self.registry,
        )
        stages = Histogram(
            "imagesafety_upload_stage_seconds",
            "How long an upload was in a stage: upload, score, and in that decode and encode.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in _STAGES}
        self._time_budget = Gauge(
            "imagesafety_time_budget_seconds",
            "The setting time_budget: from an upload's first byte to its answer.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "imagesafety_upload_seconds",
            "From an upload's first byte to its answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.ledger_seconds = Histogram(
            "imagesafety_ledger_write_seconds",
            "How long an answer waited for its row to be durable.",
            buckets=_WRITE_SECONDS,
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def tell_time_budget(self, seconds: float) -> None:
        """Says how long an upload may take."""
        self._time_budget.set(seconds)

    def observe_stages(self, timings: Timings) -> None:
        """Counts the stages that an upload went through."""
        for stage, histogram in self._stages.items():
            milliseconds: float | None = getattr(timings, stage)
            if milliseconds is not None:
                histogram.observe(milliseconds / 1000)

    def count_decision(self, decision: Decision, seconds: float, received: int) -> None:
        """Counts an answered upload, of which so many bytes were read."""
        self._bytes.inc(received)
        answer = "accept" if decision.accepted else "reject"
        self._decisions.labels(answer, decision.cause, decision.rule or "").inc()
        if decision.flagged:
            self._flagged.labels(decision.rule or "").inc()
        if decision.shadow is not None:
            self._shadow.labels(decision.shadow, decision.shadow_rule or "").inc()
        if decision.unscanned:
            self._unscanned.labels(decision.cause).inc()
        self._seconds.observe(seconds)

    def count_refusal(self, status: int) -> None:
        """Counts a request answered with a 4xx that is no decision."""
        self._refused.labels(str(status)).inc()

    def count_repeat(self, source: str) -> None:
        """Counts an upload whose scores were there already: in memory, ledger or flight."""
        self._repeats.labels(source).inc()

    def count_retry(self, reason: str, outcome: str) -> None:
        """Counts what came after a call that another replica might have done better."""
        self._retries.labels(reason, outcome).inc()

    def count_hedge(self, outcome: str) -> None:
        """Counts a second call beside one that took long: won or lost."""
        self._hedges.labels(outcome).inc()

    def count_rows(self, stored: str, rows: int) -> None:
        """Counts recorded decisions: in the database, the spool or nowhere."""
        self._rows.labels(stored).inc(rows)

    def count_reload(self, outcome: str) -> None:
        """Counts a new policy file: taken or refused."""
        self._reloads.labels(outcome).inc()

    def count_delivery(self, outcome: str) -> None:
        """Counts a posted webhook: delivered, failed or given_up."""
        self._deliveries.labels(outcome).inc()

    def count_rescan(self, outcome: str) -> None:
        """Counts a rescan: accept, reject, gone or failed."""
        self._rescans.labels(outcome).inc()
