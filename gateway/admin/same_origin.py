"""Whether a request that changes something comes from our own pages. Pure code.

A browser sends cookies, Basic credentials and its place on this machine along with whatever any
other page makes it send. What no browser sends by itself, a bearer token, needs none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# The types that a page can make a browser post elsewhere without asking there first.
_SENT_UNASKED = frozenset(
    {"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)


def objection(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request that a browser's own authority opens must not be served, or None."""
    site = headers.get("sec-fetch-site")
    if method in SAFE_METHODS:
        # A link from elsewhere may be followed; data may not be loaded into other pages.
        elsewhere = site in ("cross-site", "same-site")
        if elsewhere and headers.get("sec-fetch-mode") != "navigate":
            return "another site's page has asked for this"
        return None
    if site == "same-origin":  # what the browser itself says, whatever proxies make of Host
        return None
    if site not in (None, "none"):
        return "another site's page has sent this"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return "another site's page has sent this"
    if origin is None and method == "POST":
        declared = headers.get("content-type", "").partition(";")[0].strip().lower()
        if declared in _SENT_UNASKED:
            return "nothing tells where this comes from: use a bearer token, or send it as JSON"
    return None
