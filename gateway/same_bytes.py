"""What is known of an upload from others with the same bytes: earlier ones, or one under way."""

from __future__ import annotations

import asyncio

from gateway.decision_record import scored_by
from gateway.evidence import (
    Cause,
    Evidence,
    NotLookedAt,
    Scored,
    TooLargeError,
    why_partial,
)
from gateway.examination_request import ExaminationRequest
from gateway.metrics import Metrics
from gateway.repeats import FileKey, Flight, Landed, Repeats, Source
from imagesafety.client import ScoringClient
from imagesafety.scores import ImageScores


class SameBytes:
    """Finds what is known, and has what this upload comes to at hand for others.

    Which bytes these are is known at the upload's end; until then nothing is found.
    """

    def __init__(
        self,
        request: ExaminationRequest,
        repeats: Repeats | None,
        client: ScoringClient,
        metrics: Metrics,
        *,
        hashes: bool,
    ) -> None:
        """`repeats` is None if nothing is to be repeated; `client` knows the model.

        `hashes` says that perceptual ones are asked for.
        """
        self._request = request
        self._repeats = repeats
        self._client = client
        self._metrics = metrics
        self._hashes = hashes
        # Scores of a time without hashes would get past the overrides by looks that there are now.
        self._needs_hashes = hashes and request.overrides.has_looks
        self._awaited: Flight | None = None  # the scoring that we wait for
        self._own: FileKey | None = None  # of the scoring that others may wait for
        self._took_off = asyncio.Event()

    def known(self) -> Evidence | None:
        """What a whole upload needs no call for: an override for its bytes, scores in memory."""
        sha256 = self._request.upload.sha256
        if sha256 is not None and self._request.overrides.exact(sha256) is not None:
            return NotLookedAt()
        key = self._key()
        if self._repeats is None or key is None:
            return None
        return self._usable(self._repeats.remembered(key), Source.MEMORY)

    async def wait_for_others(self) -> Evidence | None:
        """What the same bytes came to; None when this upload has to be scored by itself.

        Others wait for it from then on, until `land`. Raises TooLargeError.
        """
        key = self._key()
        if key is None or self._own is not None:
            return None
        while (known := self.known()) is None:
            if self._repeats is None:
                return None
            self._awaited = self._repeats.in_flight(key)
            if self._awaited is None:
                self._repeats.take_off(key)
                self._own = key
                self._took_off.set()
                return None
            known = await self.awaited()
            if known is not None:
                break
        return known

    async def awaited(self) -> Evidence | None:
        """What the scoring came to that is waited for, if one is. Raises TooLargeError."""
        landed = await self._awaited.wait() if self._awaited is not None else None
        if isinstance(landed, TooLargeError):
            raise TooLargeError(str(landed))
        if isinstance(landed, Scored):
            self._metrics.count_repeat(Source.FLIGHT)
        return landed

    async def in_ledger(self) -> Scored | None:
        """The scores in the ledger; under any weights, if inference was not heard of yet."""
        key = self._key()
        if self._repeats is None or key is None:
            return None
        return self._usable(await self._repeats.recorded(key), Source.LEDGER)

    async def in_ledger_meanwhile(self) -> Scored | None:
        """The same while this upload is scored by itself; waits until that begins."""
        await self._took_off.wait()
        return await self.in_ledger() if self._client.model is not None else None

    def remember(self, scores: ImageScores) -> Scored:
        """Has the scores of this upload at hand for those who bring the same, now or later."""
        sha256 = self._request.upload.sha256
        scored = Scored(scores, repeat_of=self._request.id)
        policy, model = self._request.policy.policy, scores.model
        well = policy.mismatch(model.name, model.weights_digest) is None
        if self._repeats is not None and sha256 is not None and well:
            # Under the model that gave them: of several replicas, another may have answered since.
            by = scored_by(policy, model)
            self._repeats.remember(FileKey(sha256, self._request.media_type, by), scored)
        # What kept inference from seeing all of it this time may let it another time.
        passing = scores.partial and why_partial(scores) is not Cause.UNDECODABLE
        self.land(None if passing else scored)
        return Scored(scores)

    def share(self, recorded: Scored) -> None:
        """Ends the scoring that others wait for with scores of the ledger, if they do for all."""
        lacks_hashes = self._hashes and not recorded.scores.perceptual_hashes
        self.land(None if lacks_hashes else recorded)

    def land(self, outcome: Landed | None) -> None:
        """Ends the scoring that others wait for; None: one of them has to do it."""
        if self._own is not None and self._repeats is not None:
            self._repeats.land(self._own, outcome)
            self._own = None

    def _usable(self, scored: Scored | None, source: Source) -> Scored | None:
        if scored is None or (self._needs_hashes and not scored.scores.perceptual_hashes):
            return None
        self._metrics.count_repeat(source)
        return scored

    def _key(self) -> FileKey | None:
        """What the scores of the upload depend on; None until all of it came."""
        sha256 = self._request.upload.sha256
        if sha256 is None:
            return None
        dependencies = scored_by(self._request.policy.policy, self._client.model)
        return FileKey(sha256, self._request.media_type, dependencies)
