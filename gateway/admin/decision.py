"""One decision: everything that is on record of it, and the forms that overrule it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.admin.charts import Scale
from gateway.admin.explanation import explain
from gateway.admin.forms import Form, form_route
from gateway.admin.parts import Parts
from gateway.admin.policy_texts import policy_of
from gateway.admin.queries import DecisionDetails, decision_details
from gateway.admin.rendering import page, say
from gateway.ledger.record import DecisionRecord
from gateway.overrides.entries import OverrideError, entry_from_decision
from gateway.overrides.matching import OverrideAction
from imagesafety.policy import Policy
from imagesafety.verdict import rules_holding

MOST_VIEWS = 400  # rows in the list of views; a long video has more tiles than anybody reads


@dataclass(frozen=True)
class _Remedy:
    """A form that overrules: what it does, and why what looks alike can't be meant, if so."""

    action: OverrideAction
    not_alike: str | None


class DecisionPages:
    """The page of one decision, and what can be done there."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of these pages."""
        return [
            Route("/decisions/{id}", self._show),
            form_route("/decisions/{id}/override", self._overrule),
        ]

    async def _show(self, request: Request) -> Response:
        details = await self._details(request)
        record, scored = details.record, details.scored
        digest = scored.scored_by.policy_digest
        policy = policy_of(digest, details.policy_text, self._parts.current.value.policy)
        index = _chosen_view(request, record, scored)
        context: dict[str, object] = {
            "record": record,
            "scored": scored,
            "related": details.related,
            "policy": policy,
            "in_force": digest == self._parts.current.value.policy.digest,
            "index": index,
            "view": scored.views[index] if index is not None else None,
            "views": _listed(scored, policy),
            "most_views": MOST_VIEWS,
            "explained": None,
            "remedies": _remedies(_with_scores(details)),
            "override": self._parts.overrides.current.exact(record.sha256)
            if record.sha256
            else None,
            "deciding_override": self._parts.overrides.current.get(record.override)
            if record.override
            else None,
            "time_scale": Scale(0.0, max(record.timings.total, 0.001)),
        }
        if policy is not None and index is not None:
            try:
                explained = explain(policy, scored.views[index].similarities)
            except ValueError:
                explained = None  # not as many similarities as the policy has concepts
            if explained is not None:
                context |= {"explained": explained, "scale": Scale(*explained.span)}
        return page(request, "decision.html", context)

    async def _overrule(self, request: Request, form: Form) -> Response:
        details = await self._details(request)
        record = _with_scores(details)
        back = RedirectResponse(f"/decisions/{record.id}", 303)
        try:
            action = OverrideAction(form.text("action"))
        except ValueError:
            raise HTTPException(400, "An override allows or denies.") from None
        reason = form.text("why", 10_000)
        try:
            entry = entry_from_decision(
                record, action, perceptual=bool(form.text("alike")), note=reason
            )
            await self._parts.overrides.add([entry], who=request.state.who, why=reason)
        except OverrideError as error:
            say(request, f"Nothing was changed: {error}.")
            return back
        done = "allowed" if action is OverrideAction.ALLOW else "denied"
        alike = ", and what looks alike" if entry.pdq is not None else ""
        say(request, f"From now on these bytes are {done}{alike}.")
        return back

    async def _details(self, request: Request) -> DecisionDetails:
        """What is asked for. Raises HTTPException 404."""
        name: str = request.path_params["id"]
        details = None
        if re.fullmatch(r"[0-9a-f]{32}", name):
            details = await self._parts.ledger.transaction(lambda c: decision_details(c, name))
        if details is None:
            raise HTTPException(404, "There is no such decision; it may be older than is kept.")
        return details


def _with_scores(details: DecisionDetails) -> DecisionRecord:
    """The decision with the views of the original, if it is a repeat without its own."""
    if details.record.views:
        return details.record
    scored = details.scored
    return replace(
        details.record,
        views=scored.views,
        perceptual_hashes=scored.perceptual_hashes,
        total_frames=scored.total_frames,
    )


def _chosen_view(request: Request, record: DecisionRecord, scored: DecisionRecord) -> int | None:
    """The view to explain: the one asked for, else the one that decided. Raises HTTPException."""
    if not scored.views:
        return None
    text = request.query_params.get("view", "")
    if not text:
        deciding = record.deciding_view
        if deciding is None:
            deciding = scored.deciding_view
        return min(deciding or 0, len(scored.views) - 1)
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) >= len(scored.views):
        raise HTTPException(404, f"This decision has {len(scored.views)} views, from 0 on.")
    return int(text)


def _listed(scored: DecisionRecord, policy: Policy | None) -> list[tuple[int, str]]:
    """The views to choose from, each with the rules that hold for it."""
    listed = []
    for index, view in enumerate(scored.views[:MOST_VIEWS]):
        try:
            held = rules_holding(policy, view.similarities) if policy is not None else []
        except ValueError:
            held = []
        listed.append((index, ", ".join(rule.name for rule in held)))
    return listed


def _remedies(record: DecisionRecord) -> list[_Remedy]:
    """What can be done about these bytes; nothing where they are not known."""
    if record.sha256 is None:
        return []
    return [_Remedy(action, _why_not_alike(record, action)) for action in OverrideAction]


def _why_not_alike(record: DecisionRecord, action: OverrideAction) -> str | None:
    try:
        entry_from_decision(record, action, perceptual=True)
    except OverrideError as error:
        return str(error)
    return None
