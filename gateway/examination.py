"""What is found out about an upload: streamed to inference, unless its scores are there already."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from gateway.decision import Cause, Evidence, NotLookedAt, Scored, Unscored, why_unscored
from gateway.decision_record import scored_by
from gateway.metrics import Metrics
from gateway.overrides.matching import OverrideSet
from gateway.policy_in_force import PolicyInForce
from gateway.repeats import FileKey, Flight, Repeats, Source
from gateway.upload import ClientGoneError, Upload, UploadTooLargeError
from imagesafety.client import ScoringClient, ScoringError
from imagesafety.policy import Mode
from imagesafety.scores import ImageScores, ModelIdentity

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class ExaminationRequest:
    """An upload, and all that its examination depends on, as it was when it began."""

    id: str
    upload: Upload
    client: str
    mode: Mode
    media_type: str
    policy: PolicyInForce
    overrides: OverrideSet


class Examiner:
    """What examinations have in common."""

    def __init__(
        self, client: ScoringClient, repeats: Repeats | None, metrics: Metrics, *, hashes: bool
    ) -> None:
        """`repeats` is None if nothing is to be repeated; `hashes` asks for perceptual ones."""
        self.repeats = repeats
        self.metrics = metrics
        self._client = client
        self._hashes = hashes

    @property
    def model(self) -> ModelIdentity | None:
        """The model that inference had when it was last heard of."""
        return self._client.model

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
        its hash. Raises ClientGoneError, UploadTooLargeError, and TooLargeError.
        """
        examination = _Examination(self, request, until)
        if request.mode is Mode.OFF:
            await request.upload.read_rest()
            return Examined(NotLookedAt())
        if request.upload.ended and (known := examination.known()) is not None:
            return Examined(known)
        running = asyncio.create_task(examination.run())
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
    """What was found out; `score_seconds` is how long a call of inference took, if it answered."""

    evidence: Evidence
    score_seconds: float | None = None


class _KnownError(Exception):
    """Ends a call whose scores are not needed any more."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__()
        self.evidence = evidence


class _Examination:
    """One upload on its way to evidence."""

    def __init__(self, examiner: Examiner, request: ExaminationRequest, until: float) -> None:
        self._examiner = examiner
        self._request = request
        self._until = until
        self._awaited: Flight | None = None  # the scoring of the same bytes that we wait for
        self._own: FileKey | None = None  # of the scoring that others may wait for
        self._scores_itself = asyncio.Event()

    async def run(self) -> Examined:
        """Finds the evidence. Raises UploadTooLargeError, ClientGoneError, and TooLargeError."""
        try:
            if self._request.upload.ended:
                await self._wait_for_others()
            return await self._score()
        except _KnownError as known:
            return Examined(known.evidence)
        except ScoringError as error:
            if self._awaited is not None and (scored := await self._awaited.wait()) is not None:
                return Examined(scored)
            evidence = why_unscored(error)
        except (ClientGoneError, UploadTooLargeError):
            raise
        except Exception:
            # A mistake of ours must not decide more than the configuration allows it to.
            log.exception("scoring failed")
            evidence = Unscored(Cause.ERROR, "an internal error")
        finally:
            self._land(None)
        await self._request.upload.read_rest()
        return Examined(evidence)

    def known(self) -> Evidence | None:
        """What a whole upload needs no call for."""
        sha256, repeats = self._request.upload.sha256, self._examiner.repeats
        if sha256 is not None and self._request.overrides.exact(sha256) is not None:
            return NotLookedAt()
        key = self._key()
        if repeats is None or key is None or (scored := repeats.remembered(key)) is None:
            return None
        self._examiner.metrics.count_repeat(Source.MEMORY)
        return scored

    def _key(self) -> FileKey | None:
        """What the scores of the upload depend on; None until all of it came."""
        sha256 = self._request.upload.sha256
        if sha256 is None:
            return None
        dependencies = scored_by(self._request.policy.policy, self._examiner.model)
        return FileKey(sha256, self._request.media_type, dependencies)

    async def _wait_for_others(self) -> None:
        """Returns when the upload has to be scored by itself; raises _KnownError when not."""
        repeats, key = self._examiner.repeats, self._key()
        if key is None:
            return
        while (known := self.known()) is None:
            if repeats is None:
                return
            self._awaited = repeats.in_flight(key)
            if self._awaited is None:
                repeats.take_off(key)
                self._own = key
                self._scores_itself.set()
                return
            if (scored := await self._awaited.wait()) is not None:
                self._examiner.metrics.count_repeat(Source.FLIGHT)
                known = scored
                break
        raise _KnownError(known)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The upload. Inference begins at its end, so what is known before costs no scoring."""
        async for chunk in self._request.upload:
            yield chunk
        if self._own is None:
            await self._wait_for_others()

    async def _score(self) -> Examined:
        """Scores the upload, unless the ledger has its scores before."""
        started = time.monotonic()
        scoring = asyncio.create_task(
            self._examiner.score(
                self._chunks(),
                self._request.policy,
                client=self._request.client,
                media_type=self._request.media_type,
                seconds=self._until - started,
            )
        )
        finding = asyncio.create_task(self._recorded())
        try:
            await asyncio.wait({scoring, finding}, return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done() and (recorded := finding.result()) is not None:
                self._examiner.metrics.count_repeat(Source.LEDGER)
                self._land(recorded)
                return Examined(recorded)
            scores = await scoring
            self._remember(scores)
            return Examined(Scored(scores), time.monotonic() - started)
        finally:
            for task in (scoring, finding):
                task.cancel()
            await asyncio.gather(scoring, finding, return_exceptions=True)

    async def _recorded(self) -> Scored | None:
        """The scores of the same bytes in the ledger, when it is known which bytes these are."""
        await self._scores_itself.wait()
        if self._own is None or self._examiner.repeats is None or self._examiner.model is None:
            return None
        return await self._examiner.repeats.recorded(self._own)

    def _remember(self, scores: ImageScores) -> None:
        """Has the scores at hand for those who bring the same bytes, now or later."""
        repeats, key = self._examiner.repeats, self._key()
        if repeats is not None and key is not None:
            self._land(repeats.remember(key, scores, self._request.id))

    def _land(self, scored: Scored | None) -> None:
        if self._own is not None and self._examiner.repeats is not None:
            self._examiner.repeats.land(self._own, scored)
            self._own = None
