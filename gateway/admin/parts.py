"""What the pages are made from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.first_call import FirstCall
from gateway.health import State
from gateway.ledger.ledger import AnyLedger
from gateway.overrides.store import OverrideStore
from gateway.policy_in_force import CurrentPolicy
from gateway.replicas import Replica
from gateway.settings import Settings
from imagesafety.policy import Policy


@dataclass(frozen=True)
class Parts:
    """The parts of a running gateway that pages show or change."""

    settings: Settings
    ledger: AnyLedger
    overrides: OverrideStore
    current: CurrentPolicy
    health: Callable[[], Awaitable[State]]
    replicas: Callable[[Policy], Awaitable[Sequence[Replica]]]
    first_call: FirstCall
