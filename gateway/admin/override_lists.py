"""Lists of overrides as files: in, with every broken line told, and out."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.admin.forms import Form, form_route
from gateway.admin.parts import Parts
from gateway.admin.rendering import page
from gateway.overrides.entries import OverrideError
from gateway.overrides.hash_list_export import FILE_TYPES, export
from gateway.overrides.hash_lists import (
    MOST_BYTES,
    Defaults,
    HashKind,
    HashListError,
    LineError,
    ListFormat,
    parse,
)
from gateway.overrides.matching import OverrideAction
from gateway.overrides.store import Added

MOST_ERRORS = 1000  # broken lines that are shown one by one


class OverrideLists:
    """The import form's target, and the export."""

    def __init__(self, parts: Parts) -> None:
        self._overrides = parts.overrides

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of these pages."""
        return [
            form_route("/overrides/import", self._import, most_file_bytes=MOST_BYTES),
            Route("/overrides/export", self._export),
        ]

    async def _import(self, request: Request, form: Form) -> Response:
        reason = form.text("why", 10_000)
        try:
            list_format = ListFormat(form.text("format"))
            defaults = Defaults(
                action=OverrideAction(form.text("action")),
                kind=HashKind(form.text("kind")),
                rule=form.text("rule") or None,
                note=reason,
            )
        except ValueError:
            raise HTTPException(400, "Choose a format, an action and a kind of hash.") from None
        added, problem, errors = Added(0, 0), None, tuple[LineError, ...]()
        try:
            data = form.files.get("list", b"")
            found = await asyncio.to_thread(parse, data, list_format, defaults)
            errors = found.errors
            added = await self._overrides.add(found.entries, who=request.state.who, why=reason)
        except (HashListError, OverrideError) as error:
            problem = f"Nothing was imported: {error}."
        context = {
            "added": added,
            "problem": problem,
            "errors": errors,
            "most_errors": MOST_ERRORS,
        }
        return page(request, "import.html", context, 400 if problem else 200)

    async def _export(self, request: Request) -> Response:
        query = request.query_params
        try:
            list_format = ListFormat(query.get("format", ListFormat.CSV))
            action = OverrideAction(query.get("action", OverrideAction.DENY))
            kind = HashKind(query["kind"]) if "kind" in query else None
        except ValueError:
            raise HTTPException(400, "There is no such list.") from None
        entries = self._overrides.current.entries
        text = await asyncio.to_thread(export, entries, list_format, action=action, kind=kind)
        media_type, ending = FILE_TYPES[list_format]
        name = "overrides" if list_format is ListFormat.CSV else f"{action}-list"
        disposition = f'attachment; filename="imagesafety-{name}.{ending}"'
        headers = {"Content-Disposition": disposition}
        return Response(text, media_type=media_type, headers=headers)
