"""A stand-in for pict-rs, for what a real one can't be made to do: faults, and formats to come.

It keeps what it gets as it is, and has no repository. What it answers is held to the real ones by
tests/real_pict_rs, which run against both. As a process of its own: `python -m tests.fake_pict_rs`.

Hashes are listed from the newest to the oldest. A page begins at the hash of its slug, and with the
newest one if that hash is not there.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from urllib.parse import quote

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.serving import serving

API_KEY = "an api key for tests"

FORMATS = {
    "a-apng": (0, "image/apng"),
    "a-avif": (1, "image/avif"),
    "a-gif": (2, "image/gif"),
    "a-webp": (3, "image/webp"),
    "i-avif": (4, "image/avif"),
    "i-jpeg": (5, "image/jpeg"),
    "i-jxl": (6, "image/jxl"),
    "i-png": (7, "image/png"),
    "i-webp": (8, "image/webp"),
    "v-mp4": (9, "video/mp4"),
    "v-webm": (10, "video/webm"),
    "i-next": (11, "image/next"),  # of a release to come
}
"""The last byte of a hash and the media type of each format."""


@dataclass
class StoredFile:
    data: bytes
    format: str
    aliases: list[str]
    damaged: bytes = b""  # what is served in place of the data
    stored_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    has_details: bool = True
    is_lost: bool = False  # from the store, so that no page with it can be listed

    @cached_property
    def hash(self) -> bytes:
        digest = hashlib.sha256(self.data).digest()
        return digest + len(self.data).to_bytes(6, "big") + bytes([FORMATS[self.format][0]])

    @property
    def sha256(self) -> str:
        return self.hash[:32].hex()

    @cached_property
    def identifier(self) -> str:
        parts = [self.sha256[start : start + 2] for start in range(0, 22, 2)]
        return f"01/{'/'.join(parts)}/{self.sha256[:12]}.{self.format[2:]}"


@dataclass(frozen=True)
class HashFormat:
    """The way to make `hex` and slug of a file."""

    hex_of: Callable[[StoredFile], str] = lambda file: file.hash.hex()
    slug_of: Callable[[StoredFile], str] = lambda file: base64.urlsafe_b64encode(file.hash).decode()


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
    on_fjall: bool = False
    on_answered: Callable[[], None] = lambda: None  # after each page of hashes
    hash_format: HashFormat = HashFormat()
    tells_current: bool = True
    ignores_slugs: bool = False
    more_fields: bool = False  # as later versions have
    validator: str = ""
    posts_forms: bool = False  # to the validator, as 0.6 does
    uploads: dict[str, asyncio.Task[Response]] = field(default_factory=dict)

    def store(self, data: bytes, format: str = "i-png", *aliases: str) -> StoredFile:  # noqa: A002
        file = StoredFile(data, format, list(aliases) or [f"{len(self.files)}.{format[2:]}"])
        self.files.append(file)
        return file

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/internal/hashes", self._hashes),
                Route("/internal/aliases", self._aliases),
                Route("/internal/identifier", self._identifier),
                Route("/internal/purge", self._purge, methods=["POST"]),
                Route("/internal/delete", self._delete, methods=["POST"]),
                Route("/image/original", self._original),
                Route("/image", self._upload, methods=["POST"]),
                Route("/image/backgrounded", self._upload_backgrounded, methods=["POST"]),
                Route("/image/backgrounded/claim", self._claim),
                Route("/healthz", self._healthz),
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

    async def _healthz(self, _: Request) -> Response:
        return Response(status_code=self.fails_with or 200)

    async def _hashes(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        limit = int(request.query_params.get("limit", "20"))
        newest_first = self.files[::-1]
        if self.on_fjall:
            newest_first.sort(key=lambda file: fjall_key(file.stored_at), reverse=True)
        slugs = [self.hash_format.slug_of(file) for file in newest_first]
        slug = request.query_params.get("slug", "")
        start = slugs.index(slug) if slug in slugs and not self.ignores_slugs else 0
        if timestamp := request.query_params.get("timestamp"):
            start = self._older_than(datetime.fromisoformat(timestamp), newest_first)
        listed = newest_first[start : start + limit]
        if any(file.is_lost for file in listed):
            return JSONResponse({"msg": "No such file", "code": "decode-image"}, 500)
        page: dict[str, object] = {
            "limit": limit,
            "hashes": [
                {
                    "hex": self.hash_format.hex_of(file),
                    "aliases": file.aliases,
                    "details": details(file),
                    **({"extra": {"of": "a later version"}} if self.more_fields else {}),
                }
                for file in listed
            ],
        }
        if listed and self.tells_current:
            page["current"] = slugs[start]
        if start > 0:
            page["prev"] = slugs[max(start - limit, 0)]
        if start + limit < len(slugs):
            page["next"] = slugs[start + limit]
        if self.more_fields:
            page["extra"] = [1, None]
        self.on_answered()
        return JSONResponse({"msg": "ok", "page": page})

    def _older_than(self, time: datetime, newest_first: list[StoredFile]) -> int:
        def is_older(file: StoredFile) -> bool:
            if self.on_fjall:
                return fjall_key(file.stored_at) < fjall_key(time)
            return file.stored_at < time

        older = (index for index, file in enumerate(newest_first) if is_older(file))
        # Where nothing is older, the query for PostgreSQL has no bound.
        return next(older, 0 if self.on_postgres else len(newest_first))

    def _named(self, request: Request) -> StoredFile | None:
        alias = request.query_params["alias"]
        return next((file for file in self.files if alias in file.aliases), None)

    async def _aliases(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        file = self._named(request)
        return JSONResponse({"msg": "ok", "aliases": file.aliases}) if file else missing()

    async def _identifier(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        file = self._named(request)
        return JSONResponse({"msg": "ok", "identifier": file.identifier}) if file else missing()

    async def _purge(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if self.purge_fails_with:
            return JSONResponse({"msg": "read only", "code": "read-only"}, self.purge_fails_with)
        if (file := self._named(request)) is None:
            return missing()
        self.files.remove(file)
        self.purged.append(request.query_params["alias"])
        return JSONResponse({"msg": "ok", "aliases": file.aliases})

    async def _delete(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if (file := self._named(request)) is None:
            return missing()
        file.aliases.remove(request.query_params["alias"])
        if not file.aliases:
            self.files.remove(file)
        return JSONResponse({"msg": "ok"})

    async def _original(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if (file := self._named(request)) is None:
            return Response(self.not_found_picture, 404)
        if self.object_storage:
            alias = request.query_params["alias"]
            return RedirectResponse(f"{self.object_storage}/{alias}", 303)
        return Response(file.damaged or file.data, media_type=FORMATS[file.format][1])

    async def _upload(self, request: Request) -> Response:
        return await self._ingest(await _image(request), 201, 400)

    async def _upload_backgrounded(self, request: Request) -> Response:
        upload = str(uuid.uuid4())
        ingesting = self._ingest(await _image(request), 200, 422)
        self.uploads[upload] = asyncio.create_task(ingesting)
        return JSONResponse({"msg": "ok", "uploads": [{"upload_id": upload}]}, 202)

    async def _claim(self, request: Request) -> Response:
        return await self.uploads.pop(request.query_params["upload_id"])

    async def _ingest(self, data: bytes, accepted: int, rejected: int) -> Response:
        file_format = _format_of(data)
        if file_format is None:
            message = {"msg": "Unsupported file", "code": "validate-unsupported-media"}
            return JSONResponse(message, rejected)
        alias = f"{uuid.uuid4()}.{file_format[2:]}"
        new = StoredFile(data, file_format, [alias], stored_at=datetime.now(UTC))
        if self.validator:
            try:
                is_valid = await self._validate(new)
            except httpx.HTTPError as error:
                message = {"msg": str(error), "code": "http-client-error"}
                return JSONResponse(message, 422 if rejected == 422 else 500)
            if not is_valid:
                message = {
                    "msg": "Failed external validation",
                    "code": "failed-external-validation",
                }
                return JSONResponse(message, rejected)
        known = next((file for file in self.files if file.hash == new.hash), None)
        if known is not None:
            known.aliases.append(alias)
        else:
            self.files.append(new)
        stored = {"file": alias, "delete_token": secrets.token_hex(8), "details": details(new)}
        return JSONResponse({"msg": "ok", "files": [stored]}, accepted)

    async def _validate(self, file: StoredFile) -> bool:
        headers = [("content-type", FORMATS[file.format][1]), ("accept", "*/*")]
        if self.posts_forms:
            boundary = secrets.token_hex(16)
            name = quote(file.identifier, safe="")
            headers += [("content-type", f"multipart/form-data; boundary={boundary}")]
            headers += [("user-agent", "pict-rs 0.6.0-rc.6")]
            start = f"--{boundary}\r\nContent-Disposition: form-data; name*=utf-8''{name}\r\n\r\n"
            parts = [start.encode(), file.data, f"\r\n--{boundary}--\r\n".encode()]
        else:
            headers += [("user-agent", "pict-rs 0.5.25")]
            parts = [file.data]

        async def body() -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.post(self.validator, headers=headers, content=body())
        return answer.is_success


async def _image(request: Request) -> bytes:
    async with request.form() as form:
        image = form["images[]"]
        assert isinstance(image, UploadFile)
        return await image.read()


def _format_of(data: bytes) -> str | None:
    """The format of a file that tests upload."""
    starts = {
        b"\x89PNG": "a-apng" if b"acTL" in data[:200] else "i-png",
        b"\xff\xd8\xff": "i-jpeg",
        b"GIF8": "a-gif",
        b"RIFF": "a-webp" if b"ANIM" in data[:200] else "i-webp",
        b"\xff\x0a": "i-jxl",
        b"\0\0\0\x0cJXL": "i-jxl",
        b"\x1aE\xdf\xa3": "v-webm",
    }
    if data[4:8] == b"ftyp":
        return {b"avif": "i-avif", b"avis": "a-avif"}.get(data[8:12], "v-mp4")
    return next((name for start, name in starts.items() if data.startswith(start)), None)


def fjall_key(time: datetime) -> bytes:
    """The key that fjall sorts by: a dot has an escape before it."""
    nanoseconds = round(time.timestamp() * 1e6) * 1000
    escaped = nanoseconds.to_bytes(16, "big").replace(b"\\", b"\\\\")
    return escaped.replace(b".", b"\\.")


def missing() -> Response:
    return JSONResponse({"msg": "No such alias", "code": "not-found"}, 404)


def details(file: StoredFile) -> dict[str, object] | None:
    if not file.has_details:
        return None
    return {
        "blurhash": "LGF5?xYk^6AAAAAAAAAAAAAAAAAA",
        "width": 1,
        "height": 1,
        "frames": None,
        "content_type": FORMATS[file.format][1],
        "created_at": file.stored_at.isoformat(),
        "format": {"a": "Animation", "i": "Image", "v": "Video"}[file.format[0]],
    }


@contextlib.asynccontextmanager
async def fake_pict_rs() -> AsyncIterator[FakePictRs]:
    """Serves; yields the store."""
    fake = FakePictRs()
    async with serving(fake.app()) as fake.url:
        yield fake


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a stand-in for pict-rs.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--validator", default="", help="a URL that each upload is posted to")
    parser.add_argument("--posts-forms", action="store_true", help="as 0.6 does")
    options = parser.parse_args()
    fake = FakePictRs(validator=options.validator, posts_forms=options.posts_forms)
    uvicorn.run(fake.app(), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
