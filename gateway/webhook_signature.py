"""Signs webhooks as the Standard Webhooks specification says. Pure code."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)  # what the specification allows


def signing_key(secret: str) -> bytes:
    """The key in a secret, "whsec_" and base64. Raises ValueError, without the secret in it."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        raise ValueError(
            f"a webhook secret is {_PREFIX} and the base64 of {_KEY_BYTES.start} to "
            f"{_KEY_BYTES.stop - 1} random bytes"
        )
    return key


def signed_headers(key: bytes, id: str, seconds: int, body: bytes) -> dict[str, str]:  # noqa: A002
    """The headers of a webhook that is sent at `seconds` since 1970.

    `id` stays the same for each attempt, so that receivers can tell what they had before.
    """
    signature = hmac.digest(key, b"%s.%d.%s" % (id.encode(), seconds, body), hashlib.sha256)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
