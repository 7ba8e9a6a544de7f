"""What the service counts, in Prometheus's terms. docs/metrics.md says what each one means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.errors import Reason
from inference.waiting import DeviceClock, Waiting
from inference.work_queue import Priority

disable_created_metrics()  # type: ignore[no-untyped-call]

Stage = Literal["receive", "decode_wait", "decode", "queue_wait", "encode", "total"]
Outcome = Literal["scored", "refused", "failed", "cancelled"]

RESTART_CAUSES = (
    *("decoder_crashed", "decoder_timeout", "decoder_out_of_memory", "deadline_exceeded"),
    *("killed", "gone", "error"),
)
_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 30)
_BATCH_VIEWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The service's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.decoder_queue, self.device_queue = Waiting(), Waiting()
        self.device = DeviceClock()
        self.registry.register(
            _Queues({"decoder": self.decoder_queue, "device": self.device_queue})
        )
        self.registry.register(_Device(self.device))
        self._images = Counter(
            "imagesafety_images_total",
            "Images that the service is done with, by outcome and reason.",
            ("outcome", "reason"),
            registry=self.registry,
        )
        stages = Histogram(
            "imagesafety_image_stage_seconds",
            "How long an image was in a stage; total: from its call to its answer.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self._stages: dict[Stage, Histogram] = {
            stage: stages.labels(stage) for stage in get_args(Stage)
        }
        self.batch_views = self._histogram(
            "imagesafety_batch_views", "Views in one forward pass.", _BATCH_VIEWS
        )
        self.batch_seconds = self._histogram(
            "imagesafety_batch_seconds", "How long one forward pass took.", _BATCH_SECONDS
        )
        waits = Histogram(
            "imagesafety_batch_wait_seconds",
            "How long the first image of a priority in a forward pass had waited for it.",
            ("priority",),
            buckets=_BATCH_SECONDS,
            registry=self.registry,
        )
        self._batch_waits = {priority: waits.labels(priority.name.lower()) for priority in Priority}
        self._restarts = Counter(
            "imagesafety_decoder_restarts_total",
            "Decoder processes that were replaced, by cause.",
            ("cause",),
            registry=self.registry,
        )
        for cause in RESTART_CAUSES:  # a counter that begins at 1 has not increased, for an alert
            self._restarts.labels(cause)
        concepts = Counter(
            "imagesafety_concept_lookups_total",
            "Images whose concepts were embedded already (hit) or not (miss).",
            ("result",),
            registry=self.registry,
        )
        self._hits, self._misses = concepts.labels("hit"), concepts.labels("miss")
        self._model = Gauge(
            "imagesafety_model_info",
            "1, with the model that the service has.",
            ("name", "digest", "backend"),
            registry=self.registry,
        )
        self._scored = self._images.labels("scored", "")

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """Counts the seconds that an image was in a stage."""
        self._stages[stage].observe(seconds)

    def observe_batch_wait(self, priority: Priority, seconds: float) -> None:
        """Counts how long the first image of a priority in a forward pass had waited for it."""
        self._batch_waits[priority].observe(seconds)

    def count_scored(self, seconds: float) -> None:
        """Counts an image with scores, and the seconds from its call to its answer."""
        self._scored.inc()
        self.observe_stage("total", seconds)

    def count_unscored(self, outcome: Outcome, reason: Reason | None = None) -> None:
        """Counts an image without scores."""
        self._images.labels(outcome, reason.name if reason is not None else "").inc()

    def count_decoder_restart(self, cause: str) -> None:
        """Counts a decoder process that is replaced."""
        self._restarts.labels(cause).inc()

    def count_concepts(self, *, hit: bool) -> None:
        """Counts an image by whether its concepts were embedded already."""
        (self._hits if hit else self._misses).inc()

    def tell_model(self, name: str, digest: str, backend: str) -> None:
        """Says which model the service has."""
        self._model.labels(name, digest, backend).set(1)

    def watch_readiness(self, ready: Callable[[], bool]) -> None:
        """Exposes whether the replica is ready; the function is called in another thread."""
        self._watch("imagesafety_replica_ready", "1 if the replica is ready, else 0.", ready)

    def watch_service(
        self,
        *,
        images: Callable[[], float],
        image_bytes: Callable[[], float],
        decoders: Callable[[], float],
    ) -> None:
        """Exposes what functions return, which are called in another thread."""
        self._watch("imagesafety_images_in_flight", "Images in the service.", images)
        self._watch(
            "imagesafety_image_bytes_in_flight", "Bytes of images in the service.", image_bytes
        )
        self._watch("imagesafety_decoder_processes", "Decoder processes.", decoders)

    def _watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(value)


class _Queues(Collector):
    """How much waits in the queues, and for how long."""

    def __init__(self, queues: dict[str, Waiting]) -> None:
        self._queues = queues

    def collect(self) -> Iterable[Metric]:
        labels, now = ("queue", "priority"), time.monotonic()
        length = GaugeMetricFamily(
            "imagesafety_queue_images", "Images that wait, by queue and priority.", labels=labels
        )
        age = GaugeMetricFamily(
            "imagesafety_queue_oldest_seconds",
            "For how long the oldest of them has waited.",
            labels=labels,
        )
        for name, queue in self._queues.items():
            for priority in Priority:
                oldest = queue.oldest(priority)
                values = (name, priority.name.lower())
                length.add_metric(values, queue.count(priority))
                age.add_metric(values, now - oldest if oldest is not None else 0.0)
        yield from (length, age)


class _Device(Collector):
    """How busy the device is."""

    def __init__(self, clock: DeviceClock) -> None:
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        now = time.monotonic()
        yield CounterMetricFamily(
            "imagesafety_device_busy_seconds_total",
            "Seconds in which the device was at work; the rate is the busy fraction.",
            self._clock.busy_seconds(now),
        )
        yield GaugeMetricFamily(
            "imagesafety_device_longest_call_seconds",
            "For how long the device has been at what it has been at longest.",
            self._clock.longest(now),
        )
