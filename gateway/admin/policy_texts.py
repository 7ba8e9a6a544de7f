"""The policies that recorded decisions were made by, from their texts."""

from __future__ import annotations

from functools import lru_cache

from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, parse_policy


def policy_of(digest: str, text: str | None, in_force: Policy) -> Policy | None:
    """The policy with this digest; None where its text is not known or not understood any more."""
    if digest == in_force.digest:
        return in_force
    return _parsed(text) if text is not None else None


@lru_cache(maxsize=64)
def _parsed(text: str) -> Policy | None:
    try:
        return parse_policy(text)
    except PolicyError:
        return None
