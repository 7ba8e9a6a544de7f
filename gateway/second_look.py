"""A file that was accepted unscanned is looked at after all."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator

from gateway.decision import Decider
from gateway.decision_record import Facts, record_of, timings_of
from gateway.evidence import Evidence, Scored, why_unscored
from gateway.examination import Examiner
from gateway.ledger.record import DecisionRecord
from gateway.overrides.matching import OverrideSource
from gateway.policy_in_force import CurrentPolicy
from imagesafety.client import ScoringError

LOOK_SECONDS = 120.0  # nobody waits for it, and others go first


class SecondLook:
    """Scores and decides files of earlier uploads, under the policy and overrides of now."""

    def __init__(
        self,
        examiner: Examiner,
        decider: Decider,
        policy: CurrentPolicy,
        overrides: OverrideSource,
    ) -> None:
        self._examiner = examiner
        self._decider = decider
        self._policy = policy
        self._overrides = overrides

    async def look(self, file: bytes, earlier: DecisionRecord) -> DecisionRecord:
        """The decision on the file of an earlier record, not yet in the ledger.

        It is decided without scores once more if inference can't look at it now either. Raises
        TooLargeError.
        """
        policy, started = self._policy.value, time.monotonic()
        evidence: Evidence
        try:
            evidence = Scored(
                await self._examiner.score(
                    _whole(file),
                    policy,
                    client=earlier.client,
                    media_type=earlier.media_type,
                    seconds=LOOK_SECONDS,
                    bulk=True,
                )
            )
        except ScoringError as error:
            evidence = why_unscored(error)
        decision = self._decider.decide(
            policy.policy,
            evidence,
            sha256=earlier.sha256,
            overrides=self._overrides.current,
            mode=earlier.client_mode,
        )
        facts = Facts(
            id=secrets.token_hex(16),
            at=time.time_ns() // 1000,
            client=earlier.client,
            client_mode=earlier.client_mode,
            sha256=earlier.sha256,
            size=earlier.size,
            media_type=earlier.media_type,
            reference=earlier.reference,
        )
        seconds = time.monotonic() - started
        timings = timings_of(evidence, total=seconds, upload=None, score=seconds)
        return record_of(decision, evidence, facts, policy.policy, timings, rescan_of=earlier.id)


async def _whole(file: bytes) -> AsyncIterator[bytes]:
    yield file
