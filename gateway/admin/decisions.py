"""The lists of decisions: all of them, and those that nobody has looked at."""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.admin import filters
from gateway.admin.filters import DecisionFilter, read_filter, read_number
from gateway.admin.outcomes import OUTCOMES
from gateway.admin.parts import Parts
from gateway.admin.queries import DecisionPage, decision_page, known_rules
from gateway.admin.rendering import page
from gateway.clients import BY_ADDRESS


class Decisions:
    """Lists with filters and pages."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of these pages."""
        return [Route("/decisions", self._all), Route("/unscanned", self._unscanned)]

    async def _all(self, request: Request) -> Response:
        return await self._show(request, "Decisions", read_filter(request.query_params))

    async def _unscanned(self, request: Request) -> Response:
        wanted = replace(read_filter(request.query_params), state="unscanned")
        return await self._show(request, "Unscanned", wanted)

    async def _show(self, request: Request, title: str, wanted: DecisionFilter) -> Response:
        before = read_number(request.query_params, "before")
        after = read_number(request.query_params, "after")

        def find(connection: Connection) -> tuple[DecisionPage, list[str]]:
            found = decision_page(connection, wanted, before=before, after=after)
            return found, known_rules(connection)

        found, rules = await self._parts.ledger.transaction(find)
        in_force = [rule.name for rule in self._parts.current.value.policy.rules]
        settings = self._parts.settings
        context = {
            "title": title,
            "unscanned": request.url.path == "/unscanned",
            "wanted": asdict(wanted),
            "found": found,
            "newest": wanted.link(),
            "newer": wanted.link(after=found.newer),
            "older": wanted.link(before=found.older),
            "rules": sorted({*in_force, *rules}),
            "clients": [BY_ADDRESS, *settings.secrets],
            "can_rescan": bool(settings.pict_rs),
            "decisions": filters.DECISIONS,
            "outcomes": OUTCOMES,
            "causes": filters.CAUSES,
            "states": filters.STATES,
            "rescans": filters.RESCANS,
        }
        return page(request, "decisions.html", context)
