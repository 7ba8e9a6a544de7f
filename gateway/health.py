"""Whether a scoring call would be tried with hope."""

from __future__ import annotations

from imagesafety.client import ScoringClient, ScoringError
from imagesafety.policy import Policy
from imagesafety.scores import ModelDescription

PROBE_SECONDS = 2.0


async def check(client: ScoringClient, policy: Policy) -> dict[str, str]:
    """The state of each component, "ok" or what is wrong with it."""
    try:
        description = await client.describe_model(timeout=PROBE_SECONDS)
    except ScoringError as error:
        return {"inference": str(error), "policy": "not compared with a model"}
    return {"inference": "ok", "policy": _objection(policy, description) or "ok"}


def _objection(policy: Policy, description: ModelDescription) -> str | None:
    """Why this inference service would not score for the policy, if so."""
    prompts = [prompt.text for concept in policy.concepts for prompt in concept.prompts]
    limits = description.limits
    for what, size, most in (
        ("concepts", len(policy.concepts), limits.max_concepts),
        ("prompts", len(prompts), limits.max_prompts),
        ("characters in a prompt", max(map(len, prompts)), limits.max_prompt_characters),
    ):
        if size > most:
            return f"the policy has {size} {what}, inference takes {most}"
    return policy.mismatch(description.model.name, description.model.weights_digest)
