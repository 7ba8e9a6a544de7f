"""`/api/v1/overrides`: overrides for programs and curl.

Only the routes: whoever mounts them says who may ask, and sets `request.state.who`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.ledger.ledger import LedgerUnavailableError
from gateway.overrides.changing import NoSuchOverrideError
from gateway.overrides.entries import NewOverride, OverrideError, as_json, hash_from_hex
from gateway.overrides.hash_list_export import FILE_TYPES, export
from gateway.overrides.hash_lists import (
    MOST_BYTES,
    Defaults,
    HashKind,
    HashListError,
    ListFormat,
    ParsedList,
    parse,
)
from gateway.overrides.matching import Override, OverrideAction
from gateway.overrides.store import Added, OverrideStore

MOST_AT_ONCE = 1000
_MOST_JSON_BYTES = 64 * 1024
_FIELDS = ("action", "sha256", "pdq", "rule", "note", "why")

_Choice = TypeVar("_Choice", bound=StrEnum)
_Endpoint = Callable[[Request], Awaitable[Response]]


class _BadRequestError(Exception):
    """A request that can't be carried out; `status` is the HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def override_routes(store: OverrideStore) -> list[Route]:
    """The routes; errors are JSON with `error` and `message`."""
    api = _Api(store)
    path = "/api/v1/overrides"
    return [
        Route(path, _answering(api.show), methods=["GET"]),
        Route(path, _answering(api.add), methods=["POST"]),
        Route(f"{path}/import", _answering(api.take_list), methods=["POST"]),
        Route(f"{path}/export", _answering(api.give_list), methods=["GET"]),
        Route(f"{path}/changes", _answering(api.history), methods=["GET"]),
        Route(f"{path}/{{id}}", _answering(api.remove), methods=["DELETE"]),
    ]


class _Api:
    def __init__(self, store: OverrideStore) -> None:
        self._store = store

    async def show(self, request: Request) -> Response:
        query = _query(request, "offset", "limit", "search")
        offset = _number(query, "offset", 0)
        limit = min(_number(query, "limit", 100), MOST_AT_ONCE)
        entries, total = await self._store.page(offset, limit, query.get("search", ""))
        shown = [_described(entry) for entry in entries]
        return JSONResponse({"total": total, "offset": offset, "overrides": shown})

    async def add(self, request: Request) -> Response:
        fields = await _json_fields(request, _FIELDS)
        action = _choice(OverrideAction, "action", fields.get("action", ""))
        sha256, pdq = fields.get("sha256", ""), fields.get("pdq", "")
        entry = NewOverride(
            action=action,
            sha256=hash_from_hex("SHA-256", sha256) if sha256 else None,
            pdq=hash_from_hex("PDQ hash", pdq) if pdq else None,
            rule=fields.get("rule") or None,
            note=fields.get("note", ""),
        )
        added = await self._store.add([entry], _who(request), fields.get("why", ""))
        return JSONResponse(
            {"imported": added.changed, "unchanged": added.unchanged},
            status_code=201 if added.changed else 200,
        )

    async def remove(self, request: Request) -> Response:
        why = _query(request, "why").get("why")
        if why is None:
            why = (await _json_fields(request, ("why",))).get("why", "")
        removed = await self._store.remove(request.path_params["id"], _who(request), why)
        return JSONResponse({"removed": _described(removed)})

    async def take_list(self, request: Request) -> Response:
        query = _query(request, "format", "action", "kind", "rule", "note", "why")
        format_ = _choice(ListFormat, "format", query.get("format", ""))
        action, kind = query.get("action"), query.get("kind")
        defaults = Defaults(
            action=_choice(OverrideAction, "action", action) if action else None,
            kind=_choice(HashKind, "kind", kind) if kind else None,
            rule=query.get("rule") or None,
            note=query.get("note", ""),
        )
        data = await _body(request, MOST_BYTES)
        try:
            # Off the event loop, where uploads wait.
            parsed = await asyncio.to_thread(parse, data, format_, defaults)
        except HashListError as error:
            raise _BadRequestError(str(error)) from None
        added = await self._store.add(parsed.entries, _who(request), query.get("why", ""))
        return await asyncio.to_thread(_outcome, parsed, added)

    async def give_list(self, request: Request) -> Response:
        query = _query(request, "format", "action", "kind")
        format_ = _choice(ListFormat, "format", query.get("format", ListFormat.CSV))
        action = _choice(OverrideAction, "action", query.get("action", OverrideAction.DENY))
        kind = _choice(HashKind, "kind", query["kind"]) if query.get("kind") else None
        # A list that lacks what was allowed would have a scan remove it.
        if (trouble := self._store.trouble()) is not None:
            raise LedgerUnavailableError(trouble)
        entries = self._store.current.entries
        content = await asyncio.to_thread(export, entries, format_, action=action, kind=kind)
        media_type, suffix = FILE_TYPES[format_]
        named = {"content-disposition": f'attachment; filename="overrides.{suffix}"'}
        return Response(content, media_type=media_type, headers=named)

    async def history(self, request: Request) -> Response:
        query = _query(request, "before", "limit", "id")
        changes = await self._store.history(
            before=_number(query, "before", 0) if "before" in query else None,
            limit=min(_number(query, "limit", 100), MOST_AT_ONCE),
            override_id=query.get("id"),
        )
        shown = [
            {
                "seq": change.seq,
                "time": _time(change.at),
                "who": change.who,
                "what": change.what,
                "why": change.why,
                "override": json.loads(change.entry),
            }
            for change in changes
        ]
        return JSONResponse({"changes": shown})


def _answering(endpoint: _Endpoint) -> _Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _BadRequestError as error:
            return _refusal(error.status, "bad_request", str(error))
        except NoSuchOverrideError as error:
            return _refusal(404, "not_found", str(error))
        except OverrideError as error:
            return _refusal(400, "bad_request", str(error))
        except LedgerUnavailableError as error:
            return _refusal(503, "unavailable", str(error))
        except ClientDisconnect:
            return Response(status_code=400)

    return answer


def _refusal(status: int, error: str, message: str) -> Response:
    return JSONResponse({"error": error, "message": message}, status_code=status)


def _outcome(parsed: ParsedList, added: Added) -> Response:
    errors = [{"line": error.line, "reason": error.reason} for error in parsed.errors]
    return JSONResponse(
        {"imported": added.changed, "unchanged": added.unchanged, "errors": errors},
        status_code=400 if errors and not parsed.entries else 200,
    )


def _who(request: Request) -> str:
    who = getattr(request.state, "who", "")
    if not isinstance(who, str) or not who:
        raise _BadRequestError("who asks is not known", 401)
    return who


def _described(entry: Override) -> dict[str, str | int | None]:
    return {**as_json(entry), "time": _time(entry.at)}


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="microseconds")


def _query(request: Request, *known: str) -> Mapping[str, str]:
    for name in request.query_params:
        if name not in known:
            names = ", ".join(known)
            raise _BadRequestError(f"unknown parameter {name[:40]!r} (known: {names})")
    return request.query_params


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise _BadRequestError(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)


def _choice(kind: type[_Choice], name: str, text: str) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise _BadRequestError(f"{name} is one of {known}, not {text[:40]!r}") from None


async def _body(request: Request, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _BadRequestError(f"the body is over {most} bytes", 413)
        parts.append(part)
    return b"".join(parts)


async def _json_fields(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    """The texts of a JSON object; what is null is left out."""
    try:
        value = json.loads(await _body(request, _MOST_JSON_BYTES))
    except (ValueError, RecursionError):
        raise _BadRequestError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise _BadRequestError("the body is not a JSON object")
    for name, item in value.items():
        if name not in known:
            raise _BadRequestError(f"unknown field {name[:40]!r} (known: {', '.join(known)})")
        if item is not None and not isinstance(item, str):
            raise _BadRequestError(f"{name} must be text")
    return {name: item for name, item in value.items() if item is not None}
