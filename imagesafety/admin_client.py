"""Asks a running gateway through its admin API."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from imagesafety.override_list import OverrideEntry, parse_overrides
from imagesafety.recorded import MEDIA_TYPE, RecordedStream, RecordedStreamError

TIMEOUT = 60.0  # seconds without a byte
_OVERRIDES = "/api/v1/overrides/export?format=csv"


class AdminApiError(Exception):
    """The gateway did not give what was asked for; the message is one line for people."""


class AdminApi:
    """The admin API at a URL, such as http://127.0.0.1:14052."""

    def __init__(self, url: str, token: str = "") -> None:
        """Raises ValueError for a URL or token that can't be one."""
        if not _is_address(url):
            raise ValueError(f"{url!r} is no address of a gateway, such as http://127.0.0.1:14052")
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the admin token has characters that no token has")
        self._url, self._token = url.rstrip("/"), token
        # Neither a proxy nor another address is to see the token.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _RefuseRedirects()
        )

    @contextlib.contextmanager
    def recorded(self, since: str) -> Iterator[RecordedStream]:
        """The decisions with scores since a time (`parse_since`), to be read inside the block.

        Raises AdminApiError, RecordedStreamError while they are read.
        """
        path = f"/api/v1/decisions/scores?since={quote(since)}"
        with contextlib.closing(self._open(path)) as response:
            if response.headers.get_content_type() != MEDIA_TYPE:
                raise AdminApiError(f"{self._url} is not the admin address of a gateway")
            yield RecordedStream(_lines(response))

    def overrides(self) -> tuple[OverrideEntry, ...]:
        """What administrators say of files now. Raises AdminApiError, OverrideListError."""
        with contextlib.closing(self._open(_OVERRIDES, "text/csv")) as response:
            if response.headers.get_content_type() != "text/csv":
                raise AdminApiError(f"{self._url} is not the admin address of a gateway")
            try:
                text = response.read().decode("utf-8-sig")
            except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
                message = f"the overrides of {self._url} can't be read: {error}"
                raise AdminApiError(message) from error
        return parse_overrides(text, f"the overrides of {self._url}")

    def _open(self, path: str, media_type: str = MEDIA_TYPE) -> Any:
        headers = {"Accept": media_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        # The scheme was checked to be http or https.
        request = urllib.request.Request(self._url + path, headers=headers)  # noqa: S310
        try:
            return self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                raise AdminApiError(self._refusal(error)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            message = f"no gateway answers at {self._url}: {reason}"
            raise AdminApiError(message) from error

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        if error.code in (401, 403):
            said = _message(error)
            if self._token:
                return f"the gateway at {self._url} refuses the admin token{said}"
            return (
                f"the gateway at {self._url} wants an admin token (--token-file, or "
                f"IMAGESAFETY_ADMIN_TOKEN){said}"
            )
        if error.code in (301, 302, 303, 307, 308, 404, 405):
            return f"{self._url} is not the admin address of a gateway, or of an older one"
        return f"the gateway at {self._url} answers {error.code}{_message(error)}"


class _RefuseRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        """Follows none."""


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is no port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    extra = parts.query or parts.fragment or parts.username is not None
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and not extra


def _message(error: urllib.error.HTTPError) -> str:
    """What a JSON body says, on one line."""
    try:
        content = json.loads(error.read(10_000))
        return f": {' '.join(str(content.get('message') or content['error']).split())}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError):
        return ""


def _lines(response: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from response
    except (OSError, http.client.HTTPException) as error:
        raise RecordedStreamError(f"the connection broke off: {error}") from error
