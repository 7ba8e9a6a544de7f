"""Scores that are there already: of the same bytes earlier, or of the same bytes just now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from gateway.evidence import Scored, TooLargeError, Unscored
from gateway.ledger.ledger import AnyLedger
from gateway.ledger.record import DecisionRecord, ScoredBy
from imagesafety.scores import ImageScores, ModelIdentity

# Of a file that is kept in memory: a long video would take the room of many pictures.
MOST_VIEWS = 4


class Source(StrEnum):
    """Where scores were."""

    MEMORY = "memory"
    LEDGER = "ledger"
    FLIGHT = "flight"


@dataclass(frozen=True, slots=True)
class FileKey:
    """What scores depend on: the bytes, what they were declared to be, the policy, the model."""

    sha256: bytes
    media_type: str
    scored_by: ScoredBy


Landed = Scored | Unscored | TooLargeError
"""What a scoring came to, if others with the same bytes need none of their own."""


class Flight:
    """A scoring that others with the same bytes wait for."""

    def __init__(self) -> None:
        self._landed: asyncio.Future[Landed | None] = asyncio.get_running_loop().create_future()

    def land(self, outcome: Landed | None) -> None:
        """Tells those who wait."""
        self._landed.set_result(outcome)

    async def wait(self) -> Landed | None:
        """What it came to; None if that says nothing of the same bytes."""
        # Shielded: who gives up waiting must not end it for the others.
        return await asyncio.shield(self._landed)


class Repeats:
    """Finds scores of the same bytes, under the same policy and model.

    What could be looked at only in part serves those who wait for it, and is repeated to nobody who
    comes later: it may be better luck next time.
    """

    def __init__(self, ledger: AnyLedger, size: int) -> None:
        """`size` is how many files are kept in memory."""
        self._ledger = ledger
        self._size = size
        self._memory: OrderedDict[FileKey, Scored] = OrderedDict()
        self._flights: dict[FileKey, Flight] = {}

    def remembered(self, key: FileKey) -> Scored | None:
        """The scores, if they are in memory."""
        scored = self._memory.get(key)
        if scored is not None:
            self._memory.move_to_end(key)
        return scored

    def remember(self, key: FileKey, scored: Scored) -> None:
        """Keeps scores for repeats, if they are of the whole file."""
        scores = scored.scores
        if not scores.partial and len(scores.views) <= MOST_VIEWS and self._size:
            self._memory[key] = scored
            self._memory.move_to_end(key)
            if len(self._memory) > self._size:
                self._memory.popitem(last=False)

    async def recorded(self, key: FileKey) -> Scored | None:
        """The scores, if they are in the ledger."""
        record = await self._ledger.find_scored(key.sha256, key.media_type, key.scored_by)
        if record is None:
            return None
        scored = Scored(scores_of(record), repeat_of=record.repeat_of or record.id)
        self.remember(key, scored)
        return scored

    def in_flight(self, key: FileKey) -> Flight | None:
        """The scoring of the same bytes that is under way, if there is one."""
        return self._flights.get(key)

    def take_off(self, key: FileKey) -> Flight:
        """Lets others with the same bytes wait for a scoring that begins now; `land` ends it."""
        flight = self._flights[key] = Flight()
        return flight

    def land(self, key: FileKey, outcome: Landed | None) -> None:
        """Ends a scoring. None means that one of those who wait has to score the file itself."""
        self._flights.pop(key).land(outcome)


def scores_of(record: DecisionRecord) -> ImageScores:
    """The scores that a decision was made from."""
    return ImageScores(
        views=record.views,
        media_type=record.found_type,
        width=record.width,
        height=record.height,
        model=ModelIdentity(
            record.scored_by.model, record.scored_by.weights_digest, record.backend
        ),
        partial=record.partial,
        frames=record.frames,
        total_frames=record.total_frames,
        perceptual_hashes=record.perceptual_hashes,
    )
