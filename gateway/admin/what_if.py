"""The what-if page: thresholds are moved, and the recorded decisions are judged anew."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.admin.charts import Scale
from gateway.admin.effects import Effect, Sample, effect_of
from gateway.admin.parts import Parts
from gateway.admin.periods import CHOICES, Period, period
from gateway.admin.recorded_rows import read_newest, read_policy_texts, span_since
from gateway.admin.rendering import page, render, sentence
from gateway.admin.threshold_moves import BadMoveError, moves
from gateway.ledger.tables import decisions
from gateway.overrides.matching import OverrideSet
from gateway.scan import CLIENT_CLOSED_REQUEST
from imagesafety.policy import Policy

MOST_DECISIONS = 5000
MOST_BYTES = 4 * 1024 * 1024  # of packed views: of 22 concepts some 35 000, judged in 0.4 s
KEPT_SECONDS = 30.0  # for how long sliders are moved over the same decisions
MOST_FLIPS = 30  # that are listed one by one


class WhatIf:
    """The page, and its part that changes while a slider moves."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # A replay takes a core: one at a time leaves the others to uploads.
        self._one_at_a_time = asyncio.Lock()
        self._kept: _Kept | None = None

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of this page."""
        return [Route("/what-if", self._show), Route("/what-if/effect", self._effect_only)]

    async def _show(self, request: Request) -> Response:
        self._kept = None
        async with self._one_at_a_time:
            return page(request, "what_if.html", await self._context(request))

    async def _effect_only(self, request: Request) -> Response:
        async with self._one_at_a_time:
            # The browser gives up one request with the next move of a slider.
            if await request.is_disconnected():
                return Response(status_code=CLIENT_CLOSED_REQUEST)
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
            problem = sentence(str(error))
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
        sample = await self._sample(wanted)
        return await asyncio.to_thread(
            effect_of, new, sample, in_force, accepts_undecodable=accepts
        )

    async def _sample(self, wanted: Period) -> Sample:
        overrides = self._parts.overrides.current
        kept = self._kept
        if kept is None or not kept.serves(wanted, overrides):
            sample = await self._parts.ledger.transaction(lambda c: _newest(c, wanted, overrides))
            kept = self._kept = _Kept(sample, wanted.name, overrides, time.monotonic())
        return kept.sample


@dataclass(frozen=True)
class _Kept:
    """A sample as it was read at a time.monotonic()."""

    sample: Sample
    period: str
    overrides: OverrideSet
    at: float

    def serves(self, wanted: Period, overrides: OverrideSet) -> bool:
        """Whether it would be much the same if it were read again."""
        fresh = time.monotonic() - self.at < KEPT_SECONDS
        return fresh and self.period == wanted.name and self.overrides is overrides


def _newest(connection: Connection, wanted: Period, overrides: OverrideSet) -> Sample:
    """The newest decisions with scores."""
    within = (decisions.c.at >= wanted.since, decisions.c.views.is_not(None))
    available = connection.scalar(select(func.count()).where(*within)) or 0
    span = span_since(connection, wanted.since)
    newest = read_newest(connection, span, MOST_DECISIONS, MOST_BYTES)
    return Sample(
        tuple(newest.recorded(overrides)),
        read_policy_texts(connection, newest.policy_digests),
        available,
    )
