"""Where spans go: OpenTelemetry's SDK, as its standard environment variables say.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_STOP_SECONDS = 3.0
_EXPORTERS = ("otlp", "console")
_PROTOCOLS = ("grpc", "http/protobuf")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log = logging.getLogger("telemetry")


class TracingError(ValueError):
    """The environment asks for traces in a way that is not known; the message is one line."""


class Exporting:
    """A running export of spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider: Final = provider

    def stop(self) -> None:
        """Sends what is left; a collector that does not answer holds nobody up for long."""
        # The SDK waits for its exporters, which retry.
        stopping = threading.Thread(target=self.provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(_STOP_SECONDS)
        if stopping.is_alive():
            log.warning("the last traces could not be exported within %g s", _STOP_SECONDS)


def exporters_wanted(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The exporters that the environment asks for. Raises TracingError for an unknown one."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not named:
        return ("otlp",) if any(environment.get(name, "").strip() for name in _ENDPOINTS) else ()
    wanted = [name.strip() for name in named.split(",")]
    if wanted == ["none"]:
        return ()
    for name in wanted:
        if name not in _EXPORTERS:
            known = ", ".join((*_EXPORTERS, "none"))
            raise TracingError(f"OTEL_TRACES_EXPORTER: {name!r} is none of {known}")
    return tuple(wanted)


def protocol_wanted(environment: Mapping[str, str]) -> str:
    """How OTLP is to be spoken; gRPC unless the environment says otherwise. Raises TracingError."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := environment.get(name, "").strip():
            if value not in _PROTOCOLS:
                raise TracingError(f"{name}: {value!r} is none of {', '.join(_PROTOCOLS)}")
            return value
    return "grpc"


def start_exporting(service: str) -> Exporting | None:
    """Begins to export, if the environment asks for it; `service` is the name if it gives none.

    Raises TracingError for what can't be meant.
    """
    wanted = exporters_wanted(os.environ)
    if not wanted:
        return None
    protocol = protocol_wanted(os.environ)
    # Imported late: it takes a third of a second that nobody needs who does not trace.
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    for name in wanted:
        exporter = _otlp_exporter(protocol) if name == "otlp" else ConsoleSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(_told_once(exporter)))
    # An exporter that fails would tell of each attempt; `_told_once` tells of the first.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return Exporting(provider)


def _resource(service: str) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    found = Resource.create()
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: service}))
    return found


def _otlp_exporter(protocol: str) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

        return over_grpc.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

    return over_http.OTLPSpanExporter()


def _told_once(exporter: SpanExporter) -> SpanExporter:
    """The exporter, with one warning when it begins to fail and a line when it works again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class ToldOnce(SpanExporter):
        _works = True

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            try:
                result = exporter.export(spans)
            except Exception:
                result = SpanExportResult.FAILURE
            self._tell(result is SpanExportResult.SUCCESS)
            return result

        def _tell(self, works: bool) -> None:
            if self._works and not works:
                log.warning("traces can't be exported, and are lost until they can be")
            elif works and not self._works:
                log.warning("traces are exported again")
            self._works = works

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return ToldOnce()
