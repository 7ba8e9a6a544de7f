"""Spans of the services, through OpenTelemetry's API. Off unless the standard variables ask.

While it is off no span is made: `server_span` looks at one variable, and `span` at whether there is
a recorded span to be below. The spans are made by hand, because OpenTelemetry's interceptors for
asynchronous gRPC servers break handlers that read and write, and leave errors unmarked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace import Span as Span  # others import it from here

from telemetry.exporting import start_exporting

_OFF: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)

_tracer: Tracer | None = None


@contextmanager
def tracing(service: str) -> Iterator[None]:
    """Traces until the block ends, if the environment asks for it.

    `service` is its name if the environment gives none. What is left at the end is exported, which
    takes a few seconds at most. Raises TracingError for what the environment can't mean.
    """
    global _tracer
    exporting = start_exporting(service)
    if exporting is None:
        yield
        return
    trace.set_tracer_provider(exporting.provider)  # the library's client looks there
    _tracer = exporting.provider.get_tracer("imagesafety")
    try:
        yield
    finally:
        _tracer = None
        exporting.stop()


def server_span(
    name: str, headers: Iterable[tuple[str, str | bytes]], *, since: float | None = None
) -> AbstractContextManager[Span]:
    """The span of a request, below that of its caller if the `headers` name one.

    `since` is time.monotonic() at its beginning, if that was earlier. An exception that leaves the
    block marks the span as failed.
    """
    if _tracer is None:
        return _OFF
    carrier = {key.lower(): value for key, value in headers if isinstance(value, str)}
    return _server_span(_tracer, name, carrier, since)


@contextmanager
def _server_span(
    tracer: Tracer, name: str, carrier: Mapping[str, str], since: float | None
) -> Iterator[Span]:
    context = propagate.extract(carrier)
    begun = None if since is None else _nanoseconds_ago(time.monotonic() - since)
    span = tracer.start_span(name, context, SpanKind.SERVER, start_time=begun)
    token = contexts.attach(trace.set_span_in_context(span, context))
    try:
        yield span
    except BaseException as error:
        mark_failed(span, error)
        raise
    finally:
        contexts.detach(token)
        span.end()


def span(name: str) -> AbstractContextManager[Span]:
    """A span below the current one, if that is recorded. An exception marks it as failed."""
    if _tracer is None or not trace.get_current_span().is_recording():
        return _OFF
    return _span(_tracer, name)


@contextmanager
def _span(tracer: Tracer, name: str) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made
        except BaseException as error:
            mark_failed(made, error)
            raise


def recorded_span() -> Span | None:
    """The current span, if it is recorded."""
    if _tracer is None:
        return None
    current = trace.get_current_span()
    return current if current.is_recording() else None


def add_past_span(name: str, parent: Span | None, seconds: float) -> None:
    """Adds a span that ends now, and began `seconds` ago, below another one."""
    if _tracer is not None and parent is not None:
        begun = _nanoseconds_ago(seconds)
        _tracer.start_span(name, trace.set_span_in_context(parent), start_time=begun).end()


def shared_span(name: str, parents: Iterable[Span | None]) -> Span | None:
    """A span for work that is done for several spans at once, to be ended by the caller.

    It is below the first of them, and linked with each in both directions. None without any.
    """
    served = list({id(one): one for one in parents if one is not None}.values())
    if _tracer is None or not served:
        return None
    links = [Link(one.get_span_context()) for one in served]
    made = _tracer.start_span(name, trace.set_span_in_context(served[0]), links=links)
    for one in served:
        one.add_link(made.get_span_context())
    return made


def mark_failed(failed: Span, error: BaseException) -> None:
    """Says of a span that an error ended it, and which: by its `reason`, if it has one.

    A cancellation is told, but is no failure.
    """
    if isinstance(error, asyncio.CancelledError):
        failed.set_attribute("imagesafety.cancelled", True)
        return
    reason = getattr(error, "reason", None)
    named = reason.name if isinstance(reason, Enum) else reason
    failed.set_attribute("error.type", named or type(error).__name__)
    failed.set_status(Status(StatusCode.ERROR, str(error)))


def _nanoseconds_ago(seconds: float) -> int:
    return time.time_ns() - round(seconds * 1e9)
