"""The pages of overrides: list, search, add, and the history of changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.admin.filters import BadFilterError, read_number
from gateway.admin.forms import Form, form_route
from gateway.admin.parts import Parts
from gateway.admin.rendering import page, say, sentence
from gateway.overrides.entries import NewOverride, OverrideError, hash_from_hex
from gateway.overrides.matching import OverrideAction
from gateway.overrides.override_rows import Change

PAGE_ENTRIES = 50
_MOST_PAGES = 1_000_000
_FIELDS = ("action", "sha256", "pdq", "rule", "why")


class Overrides:
    """The list of overrides, and what changes single ones."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of these pages."""
        return [
            Route("/overrides", self._list),
            Route("/overrides/history", self._history),
            form_route("/overrides/add", self._add),
            form_route("/overrides/{id}/remove", self._remove),
            Route("/overrides/{id}", self._one),
        ]

    async def _list(self, request: Request) -> Response:
        return await self._shown(request, {}, None, 200)

    async def _shown(
        self, request: Request, typed: Mapping[str, str], problem: str | None, status: int
    ) -> Response:
        search = request.query_params.get("search", "").strip()[:200]
        number = read_number(request.query_params, "page") or 1
        if number > _MOST_PAGES:
            raise BadFilterError("there are not so many pages")
        first = (number - 1) * PAGE_ENTRIES if number > 0 else 0
        entries, total = await self._parts.overrides.page(first, PAGE_ENTRIES, search)
        context = {
            "entries": entries,
            "total": total,
            "search": search,
            "number": number,
            "first": first + 1,
            "more": first + len(entries) < total,
            "typed": dict.fromkeys(_FIELDS, "") | dict(typed),
            "problem": problem,
            "rules": [rule.name for rule in self._parts.current.value.policy.rules],
        }
        return page(request, "overrides.html", context, status)

    async def _one(self, request: Request) -> Response:
        name: str = request.path_params["id"]
        entry = self._parts.overrides.current.get(name)
        changes = await self._parts.overrides.history(override_id=name)
        if entry is None and not changes:
            raise HTTPException(404, "There is no such override.")
        context = {"id": name, "entry": entry, "changes": list(map(_readable, changes))}
        return page(request, "override.html", context)

    async def _history(self, request: Request) -> Response:
        before = read_number(request.query_params, "before")
        changes = await self._parts.overrides.history(before=before, limit=PAGE_ENTRIES + 1)
        more = len(changes) > PAGE_ENTRIES
        changes = changes[:PAGE_ENTRIES]
        context = {
            "changes": list(map(_readable, changes)),
            "older": changes[-1].seq if more else None,
            "first_page": before is None,
        }
        return page(request, "history.html", context)

    async def _add(self, request: Request, form: Form) -> Response:
        try:
            entry = _new_entry(form)
            added = await self._parts.overrides.add(
                [entry], who=request.state.who, why=form.text("why", 10_000)
            )
        except OverrideError as error:
            return await self._shown(request, form.texts, sentence(str(error)), 400)
        say(request, "The override is in force." if added.changed else "It was in force already.")
        return RedirectResponse("/overrides", 303)

    async def _remove(self, request: Request, form: Form) -> Response:
        name: str = request.path_params["id"]
        try:
            await self._parts.overrides.remove(
                name, who=request.state.who, why=form.text("why", 10_000)
            )
        except OverrideError as error:
            say(request, f"Nothing was removed: {error}.")
            return RedirectResponse(f"/overrides/{name}" if name.isalnum() else "/overrides", 303)
        say(request, "The override is removed; what it decided stays on record.")
        return RedirectResponse("/overrides", 303)


def _new_entry(form: Form) -> NewOverride:
    """The entry that was typed. Raises OverrideError."""
    try:
        action = OverrideAction(form.text("action"))
    except ValueError:
        raise OverrideError("an override allows or denies") from None
    sha256, pdq = (form.text(name).lower() for name in ("sha256", "pdq"))
    return NewOverride(
        action,
        hash_from_hex("SHA-256", sha256) if sha256 else None,
        hash_from_hex("PDQ hash", pdq) if pdq else None,
        form.text("rule") or None,
        form.text("why", 10_000),
    )


def _readable(change: Change) -> tuple[Change, Mapping[str, object]]:
    """A change with its entry's JSON read."""
    try:
        entry = json.loads(change.entry)
    except ValueError:
        entry = None
    return change, entry if isinstance(entry, dict) else {}
