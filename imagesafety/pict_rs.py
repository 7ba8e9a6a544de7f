"""A client of pict-rs since 0.5: finds a file by its bytes, lists all, fetches one, purges it.

pict-rs has no route by hash, but pages of its listing begin at a "slug", which is made of SHA-256,
size and format: one small request says whether a file is stored, however many others there are.
Where a release makes slugs in another way, the file is searched among those of the same time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from imagesafety.closed_at_end import ClosedAtEnd
from imagesafety.pict_rs_pages import (
    HashPage,
    NoPageError,
    StoredHash,
    read_page,
    slug_of,
    slugs_of,
    sorted_time,
)

_TIMEOUT: Final = httpx.Timeout(10.0, read=30.0)
_MOST_REDIRECTS: Final = 3
_BOUNDARY: Final = 20  # hashes that tell where a listing ends, should some be purged meanwhile
_PAGE: Final = 100  # hashes; pict-rs looks up the aliases of each
_LESS: Final = (10, 1)  # hashes, where it fails on a page
_FIRST_STEP: Final = timedelta(milliseconds=1)  # back in time, past what it fails on
_LONGEST_STEP: Final = timedelta(days=20_000)
_HALVINGS: Final = 20  # of the last step, so that little is passed over
_NEAR: Final = timedelta(minutes=5)  # between an upload and its storing, by two machines' clocks
_MOST_PAGES: Final = 50  # of a search by time
_MOST_FETCHES: Final = 200  # of a search by time


class PictRsError(Exception):
    """pict-rs can't be reached, or answers what we have no use for; the message says what."""


class UnreachableError(PictRsError):
    """pict-rs itself can't be reached, whatever it was to do."""


class NotStoredError(PictRsError):
    """pict-rs doesn't have the file any more."""


class FileTooLargeError(PictRsError):
    """The file is over the limit."""


class DamagedError(PictRsError):
    """pict-rs works, but fails to list some file, such as one that its store has lost."""


class UnknownFormatError(PictRsError):
    """Hashes are of a format that is not known, so a file that was not found may be there still."""


class _FailedError(PictRsError):
    """pict-rs failed at a request."""


class _SlowError(UnreachableError):
    """pict-rs did not answer a request in time."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A place in the listing where pict-rs fails to list some file, stored before a time."""

    before: datetime
    message: str


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

    async def find(
        self, sha256: bytes, size: int, media_type: str, at: datetime
    ) -> tuple[str, ...]:
        """Return the aliases of the file of these bytes, uploaded `at` a time; none if it is gone.

        A file that came moments ago may not have been stored yet. Raises UnknownFormatError where
        pict-rs can't be asked for a hash, and none of the files of that time is this one; and
        DamagedError where pict-rs fails to list the file.
        """
        for slug in slugs_of(sha256, size, media_type):
            page = await self.page(slug, limit=1)
            if page.first is not None and page.first.has(sha256) and page.first.aliases:
                return page.first.aliases
            if not page.has_known_format:
                break
        return await self._find_by_time(sha256, size, at)

    async def _find_by_time(self, sha256: bytes, size: int, at: datetime) -> tuple[str, ...]:
        """As `find`, among files that were stored at about that time, by their bytes."""
        is_known, pages = True, 0
        candidates: list[tuple[timedelta, StoredHash]] = []
        async with aclosing(self._pages(at + _NEAR)) as listing:
            async for page in listing:
                if isinstance(page, Gap):
                    is_known = False
                    continue
                pages += 1
                is_known = is_known and (page.first is None or page.has_known_format)
                for entry in page.hashes:
                    if entry.has(sha256) and entry.aliases:
                        return entry.aliases
                    is_known = is_known and entry.size is not None
                    distance = abs(entry.stored_at - at) if entry.stored_at else timedelta()
                    if entry.size in (None, size) and distance <= _NEAR:
                        candidates.append((distance, entry))
                oldest = page.oldest
                if pages == _MOST_PAGES or (oldest is not None and oldest < at - _NEAR):
                    break
        candidates.sort(key=lambda candidate: candidate[0])
        for _, entry in candidates[:_MOST_FETCHES]:
            for alias in entry.aliases[:1]:
                if await self._is(alias, sha256, size):
                    return entry.aliases
        if is_known:
            return ()
        message = "pict-rs does not list each file, or hashes of a format that is not known"
        raise UnknownFormatError(f"{message}, and no file of that time has the same bytes")

    async def _is(self, alias: str, sha256: bytes, size: int) -> bool:
        """True if a file has these bytes; False for one that can't be had."""
        digest = hashlib.sha256()
        try:
            async with aclosing(self.fetch(alias, size)) as fetched:
                async for chunk in fetched:
                    digest.update(chunk)
        except UnreachableError:
            raise
        except PictRsError:
            return False
        return digest.digest() == sha256

    async def newest(self, until: Collection[str] = ()) -> AsyncGenerator[StoredHash | Gap, None]:
        """Yield what is stored, from the newest to the oldest; ends before a hash of `until`.

        Of what is purged meanwhile, nothing else is left out for that. What is stored meanwhile is
        newer and not among it. A file may come twice.
        """
        async with aclosing(self._pages()) as listing:
            async for page in listing:
                if isinstance(page, Gap):
                    yield page
                    continue
                for entry in page.hashes:
                    if entry.hex in until:
                        return
                    yield entry

    async def look(self, hash_hex: str, aliases: Sequence[str]) -> tuple[str, ...]:
        """Return the aliases that a file has now; none if it is gone, or nobody can fetch it."""
        for alias in aliases:
            answer = await self._internal("GET", "/internal/aliases", {"alias": alias})
            if _is_missing(answer):
                continue
            _check(answer)
            if now := _aliases(answer):  # up to 0.5.17, there are none of what is missing
                return now
        slug = slug_of(hash_hex)
        page = await self.page(slug, limit=1) if slug is not None else None
        if page is not None and page.first is not None and page.first.hex == hash_hex:
            return page.first.aliases
        if aliases or (page is not None and page.has_known_format):
            return ()
        # Neither what it is called is known, nor where it is listed.
        async with aclosing(self.newest()) as listing:
            async for entry in listing:
                if isinstance(entry, StoredHash) and entry.hex == hash_hex:
                    return entry.aliases
        return ()

    async def lists(self, hash_hex: str) -> bool:
        """True if a file is listed, even without aliases, or if that is not known."""
        slug = slug_of(hash_hex)
        if slug is None:
            return True
        page = await self.page(slug, limit=1)
        is_there = page.first is not None and page.first.hex == hash_hex
        return is_there or not (page.first is None or page.has_known_format)

    async def stored_before(self, time: datetime) -> tuple[StoredHash, ...]:
        """Return the newest of what was stored before a time with a zone; none if unknown.

        What pict-rs answers is not enough: where nothing is older, pict-rs on PostgreSQL answers
        with the newest of all, as it does where everything is.
        """
        time = sorted_time(time)
        try:
            page = await self.page(timestamp=time, limit=_BOUNDARY)
        except DamagedError:
            return ()
        return tuple(
            entry for entry in page.hashes if entry.stored_at is not None and entry.stored_at < time
        )

    async def fetch(self, alias: str, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield the file. Raises NotStoredError, and FileTooLargeError for one over `max_bytes`."""
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
                        raise FileTooLargeError(f"the file in pict-rs is over {max_bytes} bytes")
                    yield chunk
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    async def purge(self, alias: str) -> bool:
        """Removes the file with all its aliases and variants; False if there was none."""
        answer = await self._internal("POST", "/internal/purge", {"alias": alias})
        if _is_missing(answer):
            return False
        _check(answer)
        return True

    async def page(
        self, slug: str = "", *, timestamp: datetime | None = None, limit: int = _PAGE
    ) -> HashPage:
        """Return a page that begins at a slug, or a time; with the newest file if there is none.

        Raises DamagedError where pict-rs fails on a file of the page.
        """
        query = {"limit": str(limit)} | ({"slug": slug} if slug else {})
        if timestamp is not None:
            query["timestamp"] = timestamp.isoformat()
        try:
            answer = await self._internal("GET", "/internal/hashes", query)
            if answer.status_code == 404 and "code" not in _json(answer):
                raise PictRsError("pict-rs has no /internal/hashes: it is older than 0.5")
            _check(answer)
        except (_FailedError, _SlowError) as error:
            # What a file lacks, pict-rs makes while it lists it: one file may fail all of a page.
            if await self._is_healthy():
                raise DamagedError(str(error)) from error
            raise
        try:
            return read_page(answer.content)
        except NoPageError as error:
            raise PictRsError(f"pict-rs answers with {error}") from error

    async def _pages(
        self, timestamp: datetime | None = None
    ) -> AsyncGenerator[HashPage | Gap, None]:
        """Yield the pages from a time on, or all; parts of them may come twice.

        Where the file at a slug was purged meanwhile, pict-rs begins with the newest of all: then
        it goes on from where an earlier page began. Raises PictRsError if it doesn't go on.
        """
        newest: set[str] = set()
        earlier: list[str] = []
        failed: set[str] = set()
        slug: str | None = ""
        reached = timestamp or datetime.now(UTC)
        while slug is not None:
            start, is_lost = slug, False
            try:
                page = await self._part(start, timestamp if not start else None)
                while page.current != start and any(entry.hex in newest for entry in page.hashes):
                    is_lost = True
                    if not earlier:  # what was seen was purged as well
                        newest = set()
                        break
                    start = earlier.pop()
                    page = await self._part(start)
            except DamagedError as error:
                yield Gap(reached, str(error))
                # At the same file again: times that are missing, or sorted wrongly, lead back.
                if slug in failed or (after := await self._past_damage(reached)) is None:
                    return
                failed.add(slug)
                page = after
            if is_lost and page.next == slug:
                raise PictRsError("pict-rs does not go on with its listing where a page ended")
            if is_lost:
                failed.clear()
            newest = newest or {entry.hex for entry in page.hashes}
            yield page
            if page.current is not None:
                earlier.append(page.current)
            reached = page.oldest or reached
            slug = page.next

    async def _part(self, slug: str = "", timestamp: datetime | None = None) -> HashPage:
        """Return a page, a shorter one if pict-rs fails on a file. Raises DamagedError."""
        for limit in (_PAGE, *_LESS):
            try:
                return await self.page(slug, timestamp=timestamp, limit=limit)
            except DamagedError as error:
                last = error
        raise last

    async def _past_damage(self, time: datetime) -> HashPage | None:
        """Return the page after a file that can't be listed and was stored before a time, if any.

        Its slug is not known, so the page begins at a time as shortly before as can be found.
        """
        fails, works = timedelta(), _FIRST_STEP
        while not await self._lists_at(time - works):
            fails, works = works, 2 * works
            if works > _LONGEST_STEP:
                return None
        for _ in range(_HALVINGS):
            middle = (fails + works) / 2
            if await self._lists_at(time - middle):
                works = middle
            else:
                fails = middle
        page = await self._part(timestamp=time - works)
        first = page.first.stored_at if page.first is not None else None
        # Where nothing is older, pict-rs on PostgreSQL answers with the newest of all.
        return page if first is not None and first < time else None

    async def _lists_at(self, time: datetime) -> bool:
        try:
            await self.page(timestamp=time, limit=1)
        except DamagedError:
            return False
        return True

    async def _is_healthy(self) -> bool:
        """True if pict-rs reaches its repository and its store."""
        try:
            return (await self._client.get("/healthz")).is_success
        except httpx.HTTPError:
            return False

    async def _internal(self, method: str, path: str, query: dict[str, str]) -> httpx.Response:
        try:
            return await self._client.request(method, path, params=query, headers=self._key)
        except httpx.ReadTimeout as error:
            raise _SlowError(f"pict-rs does not answer {path} in {_TIMEOUT.read:g} s") from error
        except httpx.HTTPError as error:
            raise _unreachable(error) from error


def _is_missing(answer: httpx.Response) -> bool:
    """True if the alias is missing. 0.5.0 answers 400 where later versions answer 404."""
    return answer.status_code == 404 or (answer.status_code == 400 and "No images" in answer.text)


def _aliases(answer: httpx.Response) -> tuple[str, ...]:
    aliases = _json(answer).get("aliases")
    if not isinstance(aliases, list):
        raise PictRsError("pict-rs answers with something else than aliases")
    return tuple(alias for alias in aliases if isinstance(alias, str))


def _json(answer: httpx.Response) -> dict[str, object]:
    """Return the object in a body; an empty one if there is none."""
    try:
        value = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 401:
        raise PictRsError("pict-rs does not take the API key")
    if not answer.is_success:
        message = f"pict-rs answers {answer.status_code} to {answer.request.url.path}"
        raise _FailedError(f"{message}: {answer.text[:200]}" if answer.text else message)


def _unreachable(error: httpx.HTTPError) -> UnreachableError:
    return UnreachableError(f"pict-rs can't be reached: {error or type(error).__name__}")
