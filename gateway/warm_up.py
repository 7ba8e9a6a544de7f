"""Readiness at the start: until a replica has embedded the policy's concepts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.policy_in_force import CurrentPolicy
from gateway.policy_trial import TRIAL_SECONDS, NotTakenError, try_policy
from gateway.retry import Failure, failure_of
from imagesafety.client import ScoringClient, ScoringError

PAUSE_SECONDS = 1.0

log = logging.getLogger("gateway")


class WarmUp:
    """Tries the policy until inference takes it; for so long, the gateway is not ready.

    Not for ever: without inference, uploads must be answered all the same. But a policy that
    inference refuses stays out, so that a roll-out of it stops. And a replica that is full has been
    reached: a gateway must not stay away because there is much to do.
    """

    def __init__(
        self,
        client: ScoringClient,
        policy: CurrentPolicy,
        seconds: float,
        reached: Callable[[], None],
    ) -> None:
        """`seconds` is how long to wait at most; 0: not at all, and nothing is tried.

        `reached` is called when inference has taken the policy.
        """
        self._reached = reached
        self._client, self._policy, self._seconds = client, policy, seconds
        self._trouble = "no replica has embedded the policy's concepts yet" if seconds else None
        self._refused = False

    def trouble(self) -> str | None:
        """For health: what is still waited for."""
        return self._trouble

    async def run(self) -> None:
        """Tries the policy until inference takes it, or the time is up."""
        give_up_at = time.monotonic() + self._seconds
        while self._trouble is not None:
            left = give_up_at - time.monotonic()
            if left <= 0 and not self._refused:
                log.warning("uploads are taken without a warm-up: %s", self._trouble)
                self._trouble = None
                return
            try:
                await self._try(min(TRIAL_SECONDS, max(PAUSE_SECONDS, left)))
            except Exception:
                log.exception("the warm-up failed")
            if self._trouble is not None:
                await asyncio.sleep(PAUSE_SECONDS if self._refused else min(PAUSE_SECONDS, left))

    async def _try(self, seconds: float) -> None:
        try:
            await try_policy(self._client, self._policy.value, seconds)
        except NotTakenError as error:
            cause = error.__cause__
            full = isinstance(cause, ScoringError) and failure_of(cause) is Failure.OVERLOAD
            self._trouble, self._refused = None if full else str(error), error.refused
            return
        self._trouble = None
        self._reached()
        log.info("inference has embedded the policy's concepts")
