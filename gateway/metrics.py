"""What the gateway counts, in Prometheus's terms."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.decision import Decision


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "imagesafety_decisions_total",
            "Uploads answered, by decision, cause and rule.",
            ("decision", "cause", "rule"),
            registry=self.registry,
        )
        self._unscanned = Counter(
            "imagesafety_unscanned_total",
            "Uploads accepted without scores, by cause.",
            ("cause",),
            registry=self.registry,
        )
        self._refused = Counter(
            "imagesafety_refused_requests_total",
            "Requests that were no upload to decide on, by HTTP status.",
            ("status",),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "imagesafety_upload_seconds",
            "From an upload's first byte to its answer.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16),
            registry=self.registry,
        )

    def count_decision(self, decision: Decision, seconds: float) -> None:
        """Counts an answered upload."""
        answer = "accept" if decision.accepted else "reject"
        self._decisions.labels(answer, decision.cause, decision.rule or "").inc()
        if decision.unscanned:
            self._unscanned.labels(decision.cause).inc()
        self._seconds.observe(seconds)

    def count_refusal(self, status: int) -> None:
        """Counts a request answered with a 4xx that is no decision."""
        self._refused.labels(str(status)).inc()
