"""What happened to every upload, as it was seen from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sent:
    """An upload began. `picture` is the number of the drawing in it; times are in seconds."""

    upload: int
    picture: int
    sha256: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP answer came, whole. `id` is empty where the answer is no decision."""

    upload: int
    status: int
    decision: str
    cause: str
    id: str
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer came. `how` is "connection" or "timeout", or "hang-up" where we left ourselves."""

    upload: int
    how: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A row of a gateway's ledger. `similarities` has one tuple for each view."""

    gateway: str
    id: str
    sha256: bytes | None
    decision: str
    cause: str
    unscanned: bool
    similarities: tuple[tuple[float, ...], ...]
    total_ms: float = 0.0
    message: str = ""


Event = Sent | Answered | Failed


@dataclass
class History:
    """The events of a row of the rehearsal, in their order."""

    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Notes what just happened."""
        self.events.append(event)


@dataclass(frozen=True, slots=True)
class Span:
    """An upload from when it was due to its end, whichever it was; `seconds` is how long."""

    at: float
    seconds: float
    end: Answered | Failed


def spans(events: Iterable[Event], since: float) -> list[Span]:
    """The uploads due after `since`, in the order of their ends; hang-ups are left out."""
    begun: dict[int, float] = {}
    found = []
    for event in events:
        if isinstance(event, Sent):
            begun[event.upload] = event.at
        elif begun.get(event.upload, -1.0) >= since and not (
            isinstance(event, Failed) and event.how == "hang-up"
        ):
            at = begun[event.upload]
            found.append(Span(at, event.at - at, event))
    return found


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values is at or under; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
