"""Whether inference takes a policy: a tiny picture is scored for it, and its concepts are warm."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import grpc

from gateway.policy_in_force import PolicyInForce
from imagesafety.client import ScoringClient, ScoringError
from imagesafety.verdict import judge_image

TRIAL_SECONDS = 60.0  # encoding many prompts takes a CPU a while

# One grey pixel.
TRIAL_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


class NotTakenError(Exception):
    """The policy can't be used with inference as it is now; `refused` if that has an answer."""

    def __init__(self, reason: str, *, refused: bool) -> None:
        super().__init__(reason)
        self.refused = refused


async def try_policy(
    client: ScoringClient, policy: PolicyInForce, seconds: float = TRIAL_SECONDS
) -> None:
    """Has a picture scored for the policy. Raises NotTakenError."""
    try:
        scores = await client.score_image(
            _picture(),
            concepts=policy.concepts,
            timeout=seconds,
            tiles=policy.policy.tiles,
            closer_when=policy.policy.closer_when,
        )
        reason = policy.policy.mismatch(scores.model.name, scores.model.weights_digest)
        if reason is not None:
            raise NotTakenError(reason, refused=True)
        judge_image(policy.policy, [view.similarities for view in scores.views])
    except ScoringError as error:
        refused = error.code is grpc.StatusCode.INVALID_ARGUMENT
        what = "inference refuses the policy" if refused else "the policy waits for inference"
        raise NotTakenError(f"{what}: {error.message}", refused=refused) from error
    except ValueError as error:
        reason = f"inference gives scores that can't be judged: {error}"
        raise NotTakenError(reason, refused=True) from error


async def _picture() -> AsyncIterator[bytes]:
    yield TRIAL_PNG
