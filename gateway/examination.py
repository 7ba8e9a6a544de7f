"""The evidence about an upload: streamed to inference, unless its scores are there already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from gateway.attempts import Attempts
from gateway.evidence import (
    Cause,
    Evidence,
    NotLookedAt,
    TooLargeError,
    Unscored,
    why_unscored,
)
from gateway.examination_request import ExaminationRequest
from gateway.metrics import Metrics
from gateway.policy_in_force import PolicyInForce
from gateway.repeats import Repeats
from gateway.same_bytes import SameBytes
from gateway.upload import ClientGoneError, UploadTooLargeError
from gateway.upload_form import MalformedFormError
from imagesafety.client import ScoringClient, ScoringError
from imagesafety.policy import Mode
from imagesafety.scores import ImageScores

log = logging.getLogger("gateway")


class Examiner:
    """The parts that all examinations share."""

    def __init__(
        self,
        client: ScoringClient,
        attempts: Attempts,
        repeats: Repeats | None,
        metrics: Metrics,
        *,
        hashes: bool,
    ) -> None:
        """`repeats` is None if nothing is to be repeated; `hashes` asks for perceptual ones."""
        self.attempts = attempts
        self._repeats = repeats
        self._metrics = metrics
        self._client = client
        self._hashes = hashes

    async def score(
        self,
        chunks: AsyncIterable[bytes],
        policy: PolicyInForce,
        *,
        client: str,
        media_type: str,
        seconds: float,
        bulk: bool = False,
    ) -> ImageScores:
        """Has inference score a file for a policy. Raises as ScoringClient.score_image."""
        return await self._client.score_image(
            chunks,
            concepts=policy.concepts,
            timeout=max(0.001, seconds),
            media_type=media_type,
            client=client,
            tiles=policy.policy.tiles,
            closer_when=policy.policy.closer_when,
            perceptual_hashes=self._hashes,
            bulk=bulk,
        )

    async def examine(self, request: ExaminationRequest, until: float) -> Examined:
        """Examines an upload by the monotonic time `until`.

        The upload is read to its end even where inference gives up before: an override may be for
        its hash. Raises ClientGoneError, UploadTooLargeError, MalformedFormError and TooLargeError.
        """
        same = SameBytes(request, self._repeats, self._client, self._metrics, hashes=self._hashes)
        if request.mode is Mode.OFF:
            await request.upload.read_rest()
            return Examined(NotLookedAt())
        if request.upload.ended and (known := same.known()) is not None:
            return Examined(known)
        running = asyncio.create_task(_Examination(self, request, same, until).run())
        watching = asyncio.create_task(request.upload.wait_for_disconnect())
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise ClientGoneError
            return running.result()
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Examined:
    """The evidence; `score_seconds` are those of a call of inference, if it answered."""

    evidence: Evidence
    score_seconds: float | None = None


class _KnownError(Exception):
    """Ends a call whose scores are not needed any more."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__()
        self.evidence = evidence


class _Examination:
    """One upload on its way to evidence."""

    def __init__(
        self, examiner: Examiner, request: ExaminationRequest, same: SameBytes, until: float
    ) -> None:
        self._examiner = examiner
        self._request = request
        self._same = same
        self._until = until
        self.sent_at: float | None = None  # this and the next as in Resendable
        self.times_sent = 0

    async def run(self) -> Examined:
        """Find the evidence. Raises as Examiner.examine."""
        try:
            if (known := await self._same.wait_for_others()) is not None:
                return Examined(known)
            return await self._score()
        except _KnownError as error:
            return Examined(error.evidence)
        except ScoringError as error:
            if (known := await self._same.awaited()) is not None:
                return Examined(known)
            evidence = self._without_scores(error)
        except (ClientGoneError, UploadTooLargeError, MalformedFormError, TooLargeError):
            raise
        except Exception:
            # A mistake of ours must not decide more than the configuration allows it to.
            log.exception("scoring failed")
            evidence = Unscored(Cause.ERROR, "an internal error")
        finally:
            self._same.land(None)
        return Examined(await self._after_all(evidence))

    def _without_scores(self, error: ScoringError) -> Unscored:
        """The reason for having none. If it lies in the bytes, it holds for all who bring them."""
        try:
            evidence = why_unscored(error)
        except TooLargeError as too_large:
            self._same.land(too_large)
            raise
        if evidence.cause is Cause.UNDECODABLE:
            self._same.land(evidence)
        return evidence

    async def _after_all(self, evidence: Unscored) -> Evidence:
        """Reads the rest of an upload that has no scores, for what is known of its bytes.

        Inference may have given up before anybody could look. Raises as `run`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                await self._request.upload.read_rest()
                if evidence.cause is not Cause.UNDECODABLE:
                    return self._same.known() or await self._same.in_ledger() or evidence
        return evidence

    @property
    def is_kept(self) -> bool:
        """See Resendable."""
        return self._request.upload.is_kept

    async def chunks(self) -> AsyncIterator[bytes]:
        """The upload. Inference begins at its end, so what is known before costs no scoring."""
        async for chunk in self._request.upload:
            yield chunk
        if (known := await self._same.wait_for_others()) is not None:
            raise _KnownError(known)
        self.times_sent += 1
        self.sent_at = self.sent_at or time.monotonic()

    async def _send(self, chunks: AsyncIterator[bytes], seconds: float) -> ImageScores:
        return await self._examiner.score(
            chunks,
            self._request.policy,
            client=self._request.client,
            media_type=self._request.media_type,
            seconds=seconds,
        )

    async def _score(self) -> Examined:
        """Scores the upload, unless the ledger has its scores before."""
        started = time.monotonic()
        scoring = asyncio.create_task(
            self._examiner.attempts.score(
                self, self._send, self._until, client=self._request.client
            )
        )
        finding = asyncio.create_task(self._same.in_ledger_meanwhile())
        try:
            await asyncio.wait({scoring, finding}, return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done() and (recorded := finding.result()) is not None:
                self._same.share(recorded)
                return Examined(recorded)
            scores, seconds = await scoring, time.monotonic() - started
            await self._request.upload.read_rest()  # scores of a part of a file are none of it
            return Examined(self._same.remember(scores), seconds)
        finally:
            for task in (scoring, finding):
                task.cancel()
            await asyncio.gather(scoring, finding, return_exceptions=True)
