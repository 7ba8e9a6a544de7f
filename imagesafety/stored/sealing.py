"""Files in quarantine: sealed, so that nobody opens one by accident.

A sealed file is MAGIC, a nonce of 12 bytes, and AES-256-GCM's output for the file; its SHA-256
belongs to what is authenticated, so that a sealed file can't be taken for another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"imagesafety quarantine 1\n"
_NONCE_BYTES, _KEY_BYTES, _TAG_BYTES = 12, 32, 16


class SealError(ValueError):
    """A key or a sealed file that can't be used; the message is one line."""


def new_key() -> str:
    """A new key, as the text of a key file."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode() + "\n"


def parse_key(text: str) -> bytes:
    """The key in the text of a key file. Raises SealError."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SealError("it is no key: `imagesafety quarantine key FILE` makes one")
    return key


def read_key(path: Path) -> bytes:
    """The key in a file. Raises SealError."""
    try:
        return parse_key(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"{path}: it can't be read: {error}") from error
    except SealError as error:
        raise SealError(f"{path}: {error}") from error


def seal(key: bytes, data: bytes) -> bytes:
    """The file, sealed."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return MAGIC + nonce + AESGCM(key).encrypt(nonce, data, _bound(hashlib.sha256(data).digest()))


def sealed_size(size: int) -> int:
    """How many bytes a file of this size has when it is sealed."""
    return len(MAGIC) + _NONCE_BYTES + size + _TAG_BYTES


def unseal(key: bytes, sealed: bytes, sha256: bytes) -> bytes:
    """The file that has this SHA-256, out of its sealed form. Raises SealError."""
    if not sealed.startswith(MAGIC):
        raise SealError("it is not a file in quarantine")
    nonce, rest = sealed[len(MAGIC) :][:_NONCE_BYTES], sealed[len(MAGIC) + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, rest, _bound(sha256))
    except (InvalidTag, ValueError):
        raise SealError("it is damaged, or was sealed under another key") from None


def _bound(sha256: bytes) -> bytes:
    return MAGIC + sha256
