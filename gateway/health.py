"""Whether a scoring call would be tried with hope, and what else is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.policy_in_force import CurrentPolicy
from imagesafety.client import ScoringClient, ScoringError
from imagesafety.policy import Policy
from imagesafety.scores import ModelDescription

PROBE_SECONDS = 2.0

Trouble = Callable[[], str | None]
"""Tells what is wrong with a component, None if nothing is."""


@dataclass(frozen=True)
class State:
    """Whether the gateway is ready, and the state of each component: "ok" or what is wrong."""

    ready: bool
    components: Mapping[str, str]


class Health:
    """The state of the gateway's components.

    Without inference or with a policy for another model, no upload can be scored: not ready. What
    is wrong with the others is told, but uploads are answered all the same.
    """

    def __init__(
        self, client: ScoringClient, policy: CurrentPolicy, others: Mapping[str, Trouble]
    ) -> None:
        self._client = client
        self._policy = policy
        self._others = others

    async def check(self) -> State:
        """Asks inference and looks at the others."""
        needed = await self._of_scoring()
        others = {name: trouble() or "ok" for name, trouble in self._others.items()}
        return State(set(needed.values()) == {"ok"}, needed | others)

    async def ready(self) -> bool:
        """Whether a scoring call would be tried with hope."""
        return (await self.check()).ready

    async def _of_scoring(self) -> dict[str, str]:
        try:
            description = await self._client.describe_model(timeout=PROBE_SECONDS)
        except ScoringError as error:
            return {"inference": str(error), "policy": "not compared with a model"}
        objection = _objection(self._policy.value.policy, description)
        return {"inference": "ok", "policy": objection or "ok"}


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
