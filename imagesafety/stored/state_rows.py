"""What a state file has on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagesafety.stored.finding import Finding
from imagesafety.stored.seen import Seen

Line = Mapping[str, object]
"""A line of the report, without its number."""


@dataclass(frozen=True)
class Scoring:
    """What similarities depend on: the model with its weights, and what was asked of it.

    `terms` is what it depends on besides whether there are any, such as the service's limits.
    """

    id: int
    model: str
    policy: str
    has_hashes: bool
    terms: str


@dataclass(frozen=True)
class Known:
    """What is recorded of a file in one version."""

    version: str
    scoring: int
    judging: int
    seen: Seen
    finding: Finding


@dataclass(frozen=True)
class OpenAction:
    """An action that was begun, and of which nobody has written that it ended."""

    id: int
    name: bytes
    version: str
    sha256: bytes
    action: str
    rule: str
