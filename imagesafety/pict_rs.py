"""A client of pict-rs 0.5: finds a file by its SHA-256, lists all, fetches one, purges it.

pict-rs has no route by hash, but pages of its listing of hashes begin at a "slug": the base64 of
SHA-256, size and format, which is all that we know of a file. So one small request says whether
it is stored, however many others there are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from datetime import datetime
from typing import Final

import httpx

from imagesafety.closed_at_end import ClosedAtEnd
from imagesafety.pict_rs_pages import HashPage, NoPageError, StoredHash, read_page, slug_of

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
_BOUNDARY: Final = 20  # hashes that tell where a listing ends, should some be purged meanwhile
_PAGE: Final = 100  # hashes; pict-rs looks up the aliases of each


class PictRsError(Exception):
    """pict-rs can't be reached, or answers what we have no use for; the message says what."""


class UnreachableError(PictRsError):
    """pict-rs itself can't be reached, whatever it was to do."""


class NotStoredError(PictRsError):
    """pict-rs doesn't have the file any more."""


class PictRs(ClosedAtEnd):
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
            entry = (await self.page(slug_of(sha256, size, name), limit=1)).first
            if entry is None:
                return ()
            if entry.sha256 == sha256 and entry.aliases:
                return entry.aliases
        return ()

    async def newest(self, until: Collection[str] = ()) -> AsyncGenerator[StoredHash, None]:
        """Yields what is stored, from the newest to the oldest; ends before a hash of `until`.

        Of what is purged meanwhile, nothing else is left out for that. What is stored meanwhile is
        newer and not among it. A file may come twice.
        """
        page = await self.page()
        while True:
            for entry in page.hashes:
                if entry.hex in until:
                    return
                yield entry
            if page.next is None:
                return
            page = await self._after(page, page.next)

    async def stored_before(self, time: datetime) -> tuple[StoredHash, ...]:
        """The newest of what was stored before a time, which has a time zone; none if unknown.

        What pict-rs answers is not enough: where nothing is older, pict-rs on PostgreSQL answers
        with the newest of all, as it does where everything is.
        """
        page = await self.page(timestamp=time, limit=_BOUNDARY)
        return tuple(
            entry for entry in page.hashes if entry.stored_at is not None and entry.stored_at < time
        )

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

    async def page(
        self, slug: str = "", *, timestamp: datetime | None = None, limit: int = _PAGE
    ) -> HashPage:
        """A page that begins at a slug, or at a time; with the newest file if there is no such."""
        query = {"limit": str(limit)} | ({"slug": slug} if slug else {})
        if timestamp is not None:
            query["timestamp"] = timestamp.isoformat()
        answer = await self._internal("GET", "/internal/hashes", query)
        if answer.status_code == 404:
            raise PictRsError("pict-rs has no /internal/hashes: it is older than 0.5")
        _check(answer)
        try:
            return read_page(answer.content)
        except NoPageError as error:
            raise PictRsError(f"pict-rs answers with {error}") from error

    async def _after(self, page: HashPage, slug: str) -> HashPage:
        """The page after one; begins earlier if the file at its slug was purged meanwhile."""
        for start in (slug, *(entry.slug for entry in reversed(page.hashes))):
            following = await self.page(start)
            if following.first is None or following.first.slug == start:
                return following
        return await self.page()  # from the newest on again: all of the page was purged

    async def _internal(self, method: str, path: str, query: dict[str, str]) -> httpx.Response:
        try:
            return await self._client.request(method, path, params=query, headers=self._key)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 401:
        raise PictRsError("pict-rs does not take the API key")
    if not answer.is_success:
        message = f"pict-rs answers {answer.status_code} to {answer.request.url.path}"
        raise PictRsError(f"{message}: {answer.text[:200]}" if answer.text else message)


def _unreachable(error: httpx.HTTPError) -> UnreachableError:
    return UnreachableError(f"pict-rs can't be reached: {error or type(error).__name__}")
