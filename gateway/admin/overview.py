"""The overview: what became of uploads by the hour, how fast, and whether all is well."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.admin import charts, overview_queries
from gateway.admin.overview_queries import Caller, Corrections, Hourly, Latency
from gateway.admin.parts import Parts
from gateway.admin.periods import CHOICES, HOUR, Period, period
from gateway.admin.rendering import page
from gateway.first_call import NEVER_CALLED
from gateway.ledger.ledger import LedgerUnavailableError

# What each of OUTCOMES means, in the order of the page.
SERIES = {
    "accepted": "no rule held, or an override allowed it",
    "rejected": "pict-rs refused the upload",
    "flagged": "accepted, for review",
    "unscanned": "accepted without scores",
    "shadow": "accepted only because of shadow mode",
}


@dataclass(frozen=True)
class _Found:
    """What the ledger says of a period."""

    hourly: Hourly
    latency: Latency | None
    corrections: Corrections
    still_unscanned: int
    callers: list[Caller]


def _find(connection: Connection, wanted: Period) -> _Found:
    return _Found(
        overview_queries.hourly(connection, wanted),
        overview_queries.latency(connection, wanted),
        overview_queries.corrections(connection, wanted),
        overview_queries.still_unscanned(connection, wanted),
        overview_queries.callers(connection, wanted),
    )


class Overview:
    """The first page."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of this page."""
        return [Route("/", self._show)]

    async def _show(self, request: Request) -> Response:
        wanted = period(request.query_params.get("period", ""))
        policy = self._parts.current.value.policy
        health, replicas = await asyncio.gather(self._parts.health(), self._parts.replicas(policy))
        context: dict[str, object] = {
            "period": wanted,
            "periods": CHOICES,
            "found": None,
            "health": health.components,
            "replicas": replicas,
            "policy": policy,
            "overrides": len(self._parts.overrides.current),
            "missing": None,
            "never_called": NEVER_CALLED,
        }
        try:
            context["missing"] = await self._parts.first_call.missing()
            found = await self._parts.ledger.transaction(lambda c: _find(c, wanted))
        except LedgerUnavailableError as error:
            # The rest of the page is what somebody needs who looks for what is wrong.
            return page(request, "overview.html", context | {"unreadable": str(error)})
        return page(request, "overview.html", context | self._of_uploads(found, wanted))

    def _of_uploads(self, found: _Found, wanted: Period) -> dict[str, object]:
        counts = found.hourly.counts
        return {
            "found": found,
            "series": SERIES,
            "since": _iso(wanted.since),
            "strips": [charts.strip(name, wanted.hours, counts[name]) for name in SERIES],
            "ticks": charts.ticks(wanted.hours),
            "width": charts.STRIP_WIDTH,
            "height": charts.STRIP_HEIGHT,
            "hours": [
                (charts.hour_words(hour), [counts[name][index] for name in SERIES])
                for index, hour in enumerate(wanted.hours)
            ],
            "time_budget": f"{self._parts.settings.time_budget:g}",
        }


def _iso(at: int) -> str:
    return f"{charts.hour_words(at // HOUR).replace(' ', 'T')}"
