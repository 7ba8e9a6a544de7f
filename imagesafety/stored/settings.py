"""What a scan is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagesafety.override_list import OverrideEntry
from imagesafety.service_address import ServiceAddress
from imagesafety.stored.actions import Action


@dataclass(frozen=True)
class QuarantineSettings:
    """Where hits are moved to, and under which key."""

    url: str
    options: Mapping[str, Any]
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class ScanSettings:
    """Everything but the place. Policy and overrides are read anew in each round.

    `since_seconds` is how far back to look, `every_seconds` when to begin again.
    """

    policy: Path
    service: ServiceAddress
    state_file: Path
    overrides: Callable[[], Sequence[OverrideEntry]] = tuple  # there are none
    report_file: Path | None = None
    action: Action = Action.REPORT
    apply: bool = False
    quarantine: QuarantineSettings | None = None
    prefix: str = ""
    since_seconds: float | None = None
    limit: int | None = None
    every_seconds: float | None = None
    verbose: bool = False
