"""`GET /api/v1/decisions/scores`: recorded similarities for `imagesafety policy replay`.

Only the route: whoever mounts it says who may ask.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.admin.recorded_rows import (
    PAGE_ROWS,
    Page,
    Span,
    read_page,
    read_policy_texts,
    span_since,
)
from gateway.ledger.ledger import AnyLedger, LedgerUnavailableError
from gateway.overrides.matching import OverrideSet, OverrideSource
from imagesafety.recorded import (
    MEDIA_TYPE,
    decision_line,
    end_line,
    error_line,
    policy_line,
    start_line,
)
from imagesafety.since import parse_since

DEFAULT_SINCE = "7d"
_PARAMETERS = ("since", "after", "limit")


def replay_routes(
    ledger: AnyLedger, overrides: OverrideSource, *, accepts_undecodable: bool = False
) -> list[Route]:
    """The route; `accepts_undecodable` is the gateway's answer for what can't be decoded.

    `since` is as `parse_since` takes it, 7d if not given; `after` goes on behind the `last` of an
    earlier answer; `limit` is how many decisions to send at most. The answer is read from the
    database a few rows at a time, as fast as the caller takes it.
    """

    async def scores(request: Request) -> Response:
        try:
            reading = _Reading(ledger, overrides, request)
        except ValueError as error:
            return _refusal(400, "bad_request", str(error))
        try:
            # Before the status line, so that an error can still be one.
            first = await reading.next_lines()
        except LedgerUnavailableError as error:
            return _refusal(503, "unavailable", str(error))
        start = start_line(accepts_undecodable=accepts_undecodable)
        return StreamingResponse(
            _body(start + first, reading),
            media_type=MEDIA_TYPE,
            headers={"cache-control": "no-store"},
        )

    return [Route("/api/v1/decisions/scores", scores, methods=["GET"])]


def _refusal(status: int, error: str, message: str) -> Response:
    return JSONResponse({"error": error, "message": message}, status_code=status)


async def _body(first: bytes, reading: _Reading) -> AsyncIterator[bytes]:
    yield first
    try:
        while not reading.ended:
            yield await reading.next_lines()
    except LedgerUnavailableError as error:
        yield error_line(str(error))


class _Reading:
    """One request's way through the decisions."""

    def __init__(self, ledger: AnyLedger, overrides: OverrideSource, request: Request) -> None:
        """Raises ValueError for parameters that can't be meant."""
        query = request.query_params
        for name in query:
            if name not in _PARAMETERS:
                known = ", ".join(_PARAMETERS)
                raise ValueError(f"unknown parameter {name[:40]!r} (known: {known})")
        self.ended = False
        self._since = parse_since(query.get("since", DEFAULT_SINCE), time.time_ns() // 1000)
        self._after = _number(query.get("after", "0"), "after")
        self._left = _number(query["limit"], "limit") if "limit" in query else None
        if self._left == 0:
            raise ValueError("limit must be 1 or more")
        self._ledger, self._overrides = ledger, overrides
        self._span: Span | None = None
        self._sent_policies: set[str] = set()

    async def next_lines(self) -> bytes:
        """The next few lines. Raises LedgerUnavailableError."""
        rows = PAGE_ROWS if self._left is None else min(PAGE_ROWS, self._left)
        page, texts = await self._ledger.transaction(
            lambda connection: self._read(connection, rows)
        )
        self._span = page.rest
        self._sent_policies |= page.policy_digests
        if self._left is not None:
            self._left -= len(page.rows)
        self.ended = len(page.rows) < rows or self._left == 0
        more = self.ended and page.rest.after < page.rest.last
        end = end_line(last=page.rest.after, more=more) if self.ended else b""
        # Off the event loop, where uploads wait.
        return await asyncio.to_thread(_encoded, page, texts, self._overrides.current) + end

    def _read(self, connection: Connection, rows: int) -> tuple[Page, dict[str, str]]:
        """A page, and the texts of its policies that were not sent yet."""
        span = self._span
        if span is None:
            span = span_since(connection, self._since)
            span = replace(span, after=max(span.after, self._after))
        page = read_page(connection, span, rows)
        return page, read_policy_texts(connection, page.policy_digests - self._sent_policies)


def _encoded(page: Page, texts: Mapping[str, str], overrides: OverrideSet) -> bytes:
    lines = [policy_line(digest, text) for digest, text in texts.items()]
    lines += [decision_line(recorded) for recorded in page.recorded(overrides)]
    return b"".join(lines)


def _number(text: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)
