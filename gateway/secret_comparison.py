"""Compares secrets in a time that tells nothing of them. Pure code."""

from __future__ import annotations

import hashlib
import hmac


def is_secret(sent: str, secret: str) -> bool:
    """Whether somebody has sent this secret, whatever else they may have sent."""
    # Digests, because lengths would show, and compare_digest takes no text that is not ASCII.
    return hmac.compare_digest(_digest(sent), _digest(secret))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
