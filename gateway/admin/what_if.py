"""The what-if page: thresholds are moved, and the recorded decisions are judged anew."""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection, func, select
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.admin.charts import Scale
from gateway.admin.effects import Effect, Sample, effect_of
from gateway.admin.parts import Parts
from gateway.admin.periods import CHOICES, Period, period
from gateway.admin.recorded_rows import Span, read_page, read_policy_texts
from gateway.admin.rendering import page, render
from gateway.admin.threshold_moves import BadMoveError, moves
from gateway.ledger.tables import decisions
from imagesafety.policy import Policy
from imagesafety.recorded import Recorded

MOST_DECISIONS = 5000
MOST_FLIPS = 30  # that are listed one by one


class WhatIf:
    """The page, and its part that changes while a slider moves."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # A replay takes a core: one at a time leaves the others to uploads.
        self._one_at_a_time = asyncio.Lock()

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of this page."""
        return [Route("/what-if", self._show), Route("/what-if/effect", self._effect_only)]

    async def _show(self, request: Request) -> Response:
        return page(request, "what_if.html", await self._context(request))

    async def _effect_only(self, request: Request) -> Response:
        return HTMLResponse(render("what_if_effect.html", await self._context(request)))

    async def _context(self, request: Request) -> dict[str, object]:
        query = request.query_params
        policy = self._parts.current.value.policy
        outdated = query.get("policy", policy.digest) != policy.digest
        made, problem = moves(policy, {}), None
        try:
            if not outdated:
                made = moves(policy, query)
        except BadMoveError as error:
            problem = str(error)
        wanted = period(query.get("period", ""), "7d")
        effect = await self._effect(made.policy, policy, wanted) if problem is None else None
        most = effect.most if effect is not None else 1
        return {
            "policy": policy,
            "moves": made,
            "outdated": outdated,
            "problem": problem,
            "period": wanted,
            "periods": CHOICES,
            "effect": effect,
            "most_flips": MOST_FLIPS,
            "scale": Scale(-most, most, 200.0),
        }

    async def _effect(self, new: Policy, in_force: Policy, wanted: Period) -> Effect:
        accepts = self._parts.settings.on_undecodable == "accept"
        async with self._one_at_a_time:
            sample = await self._parts.ledger.transaction(lambda c: _newest(c, wanted))
            return await asyncio.to_thread(
                effect_of, new, sample, in_force, accepts_undecodable=accepts
            )


def _newest(connection: Connection, wanted: Period) -> Sample:
    """The newest decisions with scores."""
    within = (decisions.c.at >= wanted.since, decisions.c.views.is_not(None))
    available = connection.scalar(select(func.count()).where(*within)) or 0
    newest = (
        select(decisions.c.seq)
        .where(*within)
        .order_by(decisions.c.at.desc(), decisions.c.seq.desc())
        .limit(MOST_DECISIONS)
        .subquery()
    )
    first, last = connection.execute(select(func.min(newest.c.seq), func.max(newest.c.seq))).one()
    found, digests = list[Recorded](), set[str]()
    span = Span((first or 0) - 1, last or 0, wanted.since)
    while first is not None and span.after < span.last:
        part = read_page(connection, span)
        found += part.recorded()
        digests |= part.policy_digests
        span = part.rest
    return Sample(tuple(found), read_policy_texts(connection, digests), available)
