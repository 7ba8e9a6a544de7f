"""The span of an upload: what it is called, and what it says of the decision."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from opentelemetry.trace import Span, Status, StatusCode
from starlette.requests import Request

from telemetry.tracing import recorded_span, server_span

# The route and not the path: that one may hold a secret.
_ROUTE = "/api/v1/scan/{client_id}"


def upload_span(request: Request, since: float) -> AbstractContextManager[Span]:
    """The span of a request whose first byte came at the time.monotonic() `since`."""
    return server_span(f"POST {_ROUTE}", request.headers.items(), since=since)


def tell_decision(fields: Mapping[str, str | int | bool], message: str, status: int) -> None:
    """Put the fields of a decision on the span; it failed if nobody has looked at the file.

    Traces leave the machine for a collector, so the caller's name for the file stays out of them.
    """
    if (span := recorded_span()) is None:
        return
    tell_status(status)
    span.set_attributes(
        {
            f"imagesafety.{'decision_id' if k == 'id' else k}": v
            for k, v in fields.items()
            if k != "reference"
        }
    )
    if fields["unscanned"]:
        span.set_status(Status(StatusCode.ERROR, message))


def tell_status(status: int) -> None:
    """Puts the answer's HTTP status on the span."""
    if (span := recorded_span()) is not None:
        span.set_attributes(
            {
                "http.request.method": "POST",
                "http.route": _ROUTE,
                "http.response.status_code": status,
            }
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
