"""A client of pict-rs 0.5: finds a file by its SHA-256, fetches it, purges it.

pict-rs has no route by hash, but pages of its listing of hashes begin at a "slug": the base64 of
SHA-256, size and format, which is all that we know of a file. So one small request says whether
it is stored, however many others there are. That a slug is made so is checked in each answer.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Final, Self

import httpx
from pydantic import BaseModel, Field, ValidationError

# The format that pict-rs adds to a hash, by the media type that it declares to its validator.
_FORMATS: Final = {
    "image/apng": ("a-apng",),
    "image/avif": ("i-avif", "a-avif"),
    "image/gif": ("a-gif",),
    "image/jpeg": ("i-jpeg",),
    "image/jxl": ("i-jxl",),
    "image/png": ("i-png",),
    "image/webp": ("i-webp", "a-webp"),
    "video/mp4": ("v-mp4",),
    "video/webm": ("v-webm",),
}
_TIMEOUT: Final = httpx.Timeout(10.0, read=30.0)
_MOST_REDIRECTS: Final = 3


class PictRsError(Exception):
    """pict-rs can't be reached, or answers what we have no use for; the message says what."""


class NotStoredError(PictRsError):
    """pict-rs doesn't have the file any more."""


class _Entry(BaseModel):
    hex: str
    aliases: list[str]


class _Page(BaseModel):
    current: str = ""
    hashes: list[_Entry] = Field(max_length=100)


class _Listing(BaseModel):
    page: _Page


class PictRs:
    """A pict-rs server and its API key. Every method raises PictRsError."""

    def __init__(self, url: str, api_key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=_TIMEOUT,
            trust_env=False,  # it is a neighbour, not the world behind a proxy
            max_redirects=_MOST_REDIRECTS,
        )
        # Only on internal requests: images may be redirected to somebody else's object storage.
        self._key = {"x-api-token": api_key}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def find(self, sha256: bytes, size: int, media_type: str) -> tuple[str, ...]:
        """What pict-rs calls the file of these bytes: its aliases; none if it is not stored.

        A file that came moments ago may not have been stored yet.
        """
        likely = _FORMATS.get(media_type, ())
        others = (name for names in _FORMATS.values() for name in names if name not in likely)
        for name in (*likely, *others):
            slug = sha256 + size.to_bytes(8, "big") + name.encode()
            entry = await self._first_from(base64.urlsafe_b64encode(slug).decode())
            if entry is None:
                return ()
            if entry.hex.startswith(sha256.hex()) and entry.aliases:
                return tuple(entry.aliases)
        return ()

    async def fetch(self, alias: str, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yields the file. Raises NotStoredError, and PictRsError for one over `max_bytes`."""
        received = 0
        try:
            async with self._client.stream(
                "GET",
                "/image/original",
                params={"alias": alias},
                headers={"accept-encoding": "identity"},
                follow_redirects=True,
            ) as answer:
                if answer.status_code == 404:  # its body may be a picture that says so
                    raise NotStoredError("pict-rs does not have the file any more")
                if answer.status_code != 200:
                    raise PictRsError(f"pict-rs answers {answer.status_code} for the file")
                async for chunk in answer.aiter_raw():
                    received += len(chunk)
                    if received > max_bytes:
                        raise PictRsError(f"the file in pict-rs is over {max_bytes} bytes")
                    yield chunk
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    async def purge(self, alias: str) -> bool:
        """Removes the file with all its aliases and variants; False if there was none."""
        answer = await self._internal("POST", "/internal/purge", {"alias": alias})
        # 0.5.0 answers 400 where later versions answer 404.
        if answer.status_code == 404 or (answer.status_code == 400 and "No images" in answer.text):
            return False
        _check(answer)
        return True

    async def _first_from(self, slug: str) -> _Entry | None:
        """The file with this slug; any other one if there is none; None if there are no files."""
        answer = await self._internal("GET", "/internal/hashes", {"slug": slug, "limit": "1"})
        if answer.status_code == 404:
            raise PictRsError("pict-rs has no /internal/hashes: it is older than 0.5")
        _check(answer)
        try:
            page = _Listing.model_validate_json(answer.content).page
        except ValidationError as error:
            raise PictRsError(
                "pict-rs answers with something else than a page of hashes"
            ) from error
        if not page.hashes:
            return None
        entry = page.hashes[0]
        # Without this, another format of slugs would make every file look as if it were gone.
        if not _is_slug_of(page.current, entry.hex):
            raise PictRsError("this version of pict-rs has another format of slugs than 0.5")
        return entry

    async def _internal(self, method: str, path: str, query: dict[str, str]) -> httpx.Response:
        try:
            return await self._client.request(method, path, params=query, headers=self._key)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error


def _is_slug_of(slug: str, hash_hex: str) -> bool:
    try:
        decoded = base64.b64decode(slug, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    known = decoded[:32].hex() == hash_hex[:64].lower()
    return known and re.fullmatch(rb"[a-z]-[a-z0-9]{3,8}", decoded[40:]) is not None


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 401:
        raise PictRsError("pict-rs does not take the API key")
    if not answer.is_success:
        message = f"pict-rs answers {answer.status_code} to {answer.request.url.path}"
        raise PictRsError(f"{message}: {answer.text[:200]}" if answer.text else message)


def _unreachable(error: httpx.HTTPError) -> PictRsError:
    return PictRsError(f"pict-rs can't be reached: {error or type(error).__name__}")
