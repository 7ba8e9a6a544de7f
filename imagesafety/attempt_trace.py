"""A span for each call of the inference service, where the caller traces with OpenTelemetry.

That is optional: without the package, or outside of any span, nothing is made or sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # pragma: no cover - the library itself does not need it
    _installed = False
else:
    _installed = True

Metadata = tuple[tuple[str, str], ...]
"""gRPC metadata that tells the service whose span its own is below."""

_LONGEST_VALUE = 512  # of a tracestate that is passed on, as W3C asks for at least

_UNTRACED: AbstractContextManager[Metadata] = nullcontext(())


def traced_attempt() -> AbstractContextManager[Metadata]:
    """The span `score` around one attempt; gives the metadata to send with it.

    An error of the service marks the span as failed; what else ends the call, as cancelled.
    """
    if not _installed or not trace.get_current_span().get_span_context().is_valid:
        return _UNTRACED
    return _attempt()


@contextmanager
def _attempt() -> Iterator[Metadata]:
    tracer = trace.get_tracer("imagesafety")
    with tracer.start_as_current_span(
        "score",
        kind=trace.SpanKind.CLIENT,
        record_exception=False,
        set_status_on_exception=False,
        attributes={"rpc.system": "grpc", "rpc.method": "ScoreImage"},
    ) as span:
        # No baggage: a stranger's headers must not fill the metadata, which gRPC bounds to 8 KiB.
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        try:
            yield tuple(item for item in carrier.items() if len(item[1]) <= _LONGEST_VALUE)
        except BaseException as error:
            code = getattr(error, "code", None)  # of a ScoringError, whose module imports this one
            if code is None:
                span.set_attribute("imagesafety.cancelled", True)
            else:
                span.set_attribute("error.type", code.name)
                span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
            raise
