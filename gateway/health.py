"""Whether a scoring call would be tried with hope."""

from __future__ import annotations

from gateway.decision import Decider
from imagesafety.client import ScoringClient, ScoringError

PROBE_SECONDS = 2.0


async def check(client: ScoringClient, decider: Decider) -> dict[str, str]:
    """The state of each component, "ok" or what is wrong with it."""
    try:
        description = await client.describe_model(timeout=PROBE_SECONDS)
    except ScoringError as error:
        return {"inference": str(error), "policy": "not compared with a model"}
    concepts, most = len(decider.policy.concepts), description.limits.max_concepts
    mismatch = decider.mismatch(description.model.name, description.model.weights_digest)
    if mismatch is None and concepts > most:
        mismatch = f"the policy has {concepts} concepts, inference takes {most}"
    return {"inference": "ok", "policy": mismatch or "ok"}
