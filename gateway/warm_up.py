"""Readiness at the start: until a replica has embedded the policy's concepts."""

from __future__ import annotations

import asyncio
import logging
import time

from gateway.policy_in_force import CurrentPolicy
from gateway.policy_trial import TRIAL_SECONDS, NotTakenError, try_policy
from gateway.retry import Failure, failure_of
from imagesafety.client import ScoringClient, ScoringError

PAUSE_SECONDS = 1.0

log = logging.getLogger("gateway")


class WarmUp:
    """Tries the policy until inference takes it; for so long, the gateway is not ready.

    Not for ever: without inference, uploads must be answered all the same. And a replica that is
    full has been reached: a gateway must not stay away because there is much to do.
    """

    def __init__(self, client: ScoringClient, policy: CurrentPolicy, seconds: float) -> None:
        """`seconds` is how long to wait at most; 0: not at all, and nothing is tried."""
        self._client, self._policy, self._seconds = client, policy, seconds
        self._trouble = "no replica has embedded the policy's concepts yet" if seconds else None

    def trouble(self) -> str | None:
        """For health: what is still waited for."""
        return self._trouble

    async def run(self) -> None:
        """Tries the policy until inference takes it, or the time is up."""
        give_up_at = time.monotonic() + self._seconds
        while self._trouble is not None:
            left = give_up_at - time.monotonic()
            if left <= 0:
                log.warning("uploads are taken without a warm-up: %s", self._trouble)
                self._trouble = None
                return
            await self._try(min(TRIAL_SECONDS, left))
            if self._trouble is not None:
                await asyncio.sleep(min(PAUSE_SECONDS, left))

    async def _try(self, seconds: float) -> None:
        try:
            await try_policy(self._client, self._policy.value, seconds)
        except NotTakenError as error:
            cause = error.__cause__
            full = isinstance(cause, ScoringError) and failure_of(cause) is Failure.OVERLOAD
            self._trouble = None if full else str(error)
            return
        self._trouble = None
        log.info("inference has embedded the policy's concepts")
