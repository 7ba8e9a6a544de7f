"""A collector of traces on loopback, over HTTP or gRPC: keeps the spans that it gets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.e2e.processes import wait_until


@dataclass(frozen=True)
class CollectedSpan:
    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str | int | bool]
    links: frozenset[str]
    failed: bool
    raw: trace_pb2.Span


class Collector:
    """What has come so far; `endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.content = b""  # all that was sent, as it came
        self._spans: list[CollectedSpan] = []
        self._lock = threading.Lock()

    def take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        with self._lock:
            self.content += request.SerializeToString()
            for of_resource in request.resource_spans:
                attributes = {a.key: a.value.string_value for a in of_resource.resource.attributes}
                for scope in of_resource.scope_spans:
                    service = attributes["service.name"]
                    self._spans += [_collected(service, span) for span in scope.spans]

    def of(self, trace: str) -> list[CollectedSpan]:
        with self._lock:
            return [span for span in self._spans if span.trace == trace]

    def wait_for(self, trace: str, *names: str) -> dict[str, CollectedSpan]:
        """The spans of a trace by name, as soon as these are among them."""
        wait_until(
            lambda: set(names) <= {span.name for span in self.of(trace)},
            f"{names} among {self._spans}",
            30,
        )
        return {span.name: span for span in self.of(trace)}


def _collected(service: str, span: trace_pb2.Span) -> CollectedSpan:
    return CollectedSpan(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes={
            a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value")
            for a in span.attributes
        },
        links=frozenset(link.span_id.hex() for link in span.links),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        raw=span,
    )


@contextlib.contextmanager
def collecting(protocol: str) -> Iterator[Collector]:
    collector = Collector()
    with _over_grpc(collector) if protocol == "grpc" else _over_http(collector) as port:
        collector.endpoint = f"http://127.0.0.1:{port}"
        yield collector


@contextlib.contextmanager
def _over_grpc(collector: Collector) -> Iterator[int]:
    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
            collector.take(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(Servicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def _over_http(collector: Collector) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
