"""Overrides and hashes for tests."""

from __future__ import annotations

from gateway.overrides.entries import NewOverride
from gateway.overrides.matching import Override, OverrideAction
from imagesafety.scores import PerceptualHash

ALLOW, DENY = OverrideAction.ALLOW, OverrideAction.DENY


def sha(number: int) -> bytes:
    """A SHA-256, as it were."""
    return number.to_bytes(32, "big")


LOOK = bytes(range(32))


def flipped(value: bytes, bits: int) -> bytes:
    """The value with its last `bits` bits the other way."""
    return (int.from_bytes(value, "big") ^ ((1 << bits) - 1)).to_bytes(len(value), "big")


def spread(value: bytes, bits: int) -> bytes:
    """The value with `bits` bits the other way, as far apart as there is room for."""
    mask = sum(1 << (place * 256 // bits) for place in range(bits)) if bits else 0
    return (int.from_bytes(value, "big") ^ mask).to_bytes(len(value), "big")


def picture(pdq: bytes, quality: int = 100, background: str = "") -> PerceptualHash:
    return PerceptualHash(pdq, quality, 0, background)


def override(
    id: str,  # noqa: A002
    action: OverrideAction,
    *,
    sha256: bytes | None = None,
    pdq: bytes | None = None,
    rule: str | None = None,
    note: str = "",
) -> Override:
    return Override(id, action, sha256, pdq, rule, note, "somebody", 1)


def in_force(entry: NewOverride, id: str = "1") -> Override:  # noqa: A002
    return entry.in_force(id, "somebody", 1)
