"""The routes of pict-rs 0.5 that we use, with what its source says of their behaviour.

Hashes are listed from the newest to the oldest. A page begins at the hash of its slug, and with the
newest one if that hash is not there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.serving import serving

API_KEY = "an api key for tests"


@dataclass
class StoredFile:
    data: bytes
    format: str
    aliases: list[str]
    damaged: bytes = b""  # what is served in place of the data
    stored_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    has_details: bool = True

    @cached_property
    def hash(self) -> bytes:
        digest = hashlib.sha256(self.data).digest()
        return digest + len(self.data).to_bytes(8, "big") + self.format.encode()

    @property
    def sha256(self) -> str:
        return self.hash[:32].hex()

    @property
    def slug(self) -> str:
        return base64.urlsafe_b64encode(self.hash).decode()


@dataclass
class FakePictRs:
    """A store that tests fill. `requests` are method and path of each request, in order."""

    url: str = ""
    files: list[StoredFile] = field(default_factory=list)  # from the oldest to the newest
    requests: list[str] = field(default_factory=list)
    keys_seen: list[tuple[str, str | None]] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)
    fails_with: int = 0
    purge_fails_with: int = 0
    not_found_picture: bytes = b""
    object_storage: str = ""  # redirect there, as with a public endpoint
    on_postgres: bool = False
    on_answered: Callable[[], None] = lambda: None  # after each page of hashes

    def store(self, data: bytes, format: str = "i-png", *aliases: str) -> StoredFile:  # noqa: A002
        file = StoredFile(data, format, list(aliases) or [f"{len(self.files)}.{format[2:]}"])
        self.files.append(file)
        return file

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/internal/hashes", self._hashes),
                Route("/internal/purge", self._purge, methods=["POST"]),
                Route("/image/original", self._original),
            ]
        )

    def _refused(self, request: Request) -> Response | None:
        key = request.headers.get("x-api-token")
        self.requests.append(f"{request.method} {request.url.path}")
        self.keys_seen.append((request.url.path, key))
        if self.fails_with:
            return JSONResponse({"msg": "out of order"}, self.fails_with)
        if request.url.path.startswith("/internal/") and key != API_KEY:
            return JSONResponse({"msg": "Invalid API Key", "code": "invalid-api-token"}, 401)
        return None

    async def _hashes(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        limit = int(request.query_params.get("limit", "20"))
        newest_first = self.files[::-1]
        slugs = [file.slug for file in newest_first]
        slug = request.query_params.get("slug", "")
        start = slugs.index(slug) if slug in slugs else 0
        if timestamp := request.query_params.get("timestamp"):
            start = self._older_than(datetime.fromisoformat(timestamp), newest_first)
        listed = newest_first[start : start + limit]
        page: dict[str, object] = {
            "limit": limit,
            "hashes": [
                {"hex": file.hash.hex(), "aliases": file.aliases, "details": details(file)}
                for file in listed
            ],
        }
        if listed:
            page["current"] = listed[0].slug
        if start + limit < len(slugs):
            page["next"] = slugs[start + limit]
        self.on_answered()
        return JSONResponse({"msg": "ok", "page": page})

    def _older_than(self, time: datetime, newest_first: list[StoredFile]) -> int:
        older = (index for index, file in enumerate(newest_first) if file.stored_at < time)
        # Where nothing is older, the query for PostgreSQL has no bound.
        return next(older, 0 if self.on_postgres else len(newest_first))

    async def _purge(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if self.purge_fails_with:
            return JSONResponse({"msg": "read only", "code": "read-only"}, self.purge_fails_with)
        alias = request.query_params["alias"]
        for file in self.files:
            if alias in file.aliases:
                self.files.remove(file)
                self.purged.append(alias)
                return JSONResponse({"msg": "ok", "aliases": file.aliases})
        return JSONResponse({"msg": "not found", "code": "not-found"}, 404)

    async def _original(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        alias = request.query_params["alias"]
        for file in self.files:
            if alias in file.aliases:
                if self.object_storage:
                    return RedirectResponse(f"{self.object_storage}/{alias}", 303)
                return Response(file.damaged or file.data, media_type="image/png")
        return Response(self.not_found_picture, 404)


def details(file: StoredFile) -> dict[str, object] | None:
    if not file.has_details:
        return None
    return {"width": 1, "height": 1, "created_at": file.stored_at.isoformat()}


@contextlib.asynccontextmanager
async def fake_pict_rs() -> AsyncIterator[FakePictRs]:
    """Serves; yields the store."""
    fake = FakePictRs()
    async with serving(fake.app()) as fake.url:
        yield fake
