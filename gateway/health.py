"""Whether a scoring call would be tried with hope, and what else is wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from gateway.policy_in_force import CurrentPolicy
from imagesafety.client import ScoringClient, ScoringError
from imagesafety.policy import Policy
from imagesafety.scores import ModelDescription

PROBE_SECONDS = 2.0
INFERENCE, POLICY = "inference", "policy"  # names of components
_NOT_COMPARED = "not compared with a model"  # for want of inference, which says so itself

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
    is wrong with `others` is told, but uploads are answered all the same.
    """

    def __init__(
        self,
        client: ScoringClient,
        policy: CurrentPolicy,
        needed: Mapping[str, Trouble],
        others: Mapping[str, Trouble],
    ) -> None:
        self._client = client
        self._policy = policy
        self._needed = needed
        self._others = others

    async def check(self, exclude: Collection[str] = ()) -> State:
        """Asks inference and looks at the others.

        Those to `exclude` are left out, as kube-apiserver does. A load balancer that asks for all
        of them would take every gateway away while inference is down, and pict-rs keeps no file
        whose validator can't be reached.
        """
        scoring = {} if set(exclude) >= {INFERENCE, POLICY} else await self._of_scoring()
        needed = scoring | _looked_at(self._needed)
        state = {
            name: said
            for name, said in (needed | _looked_at(self._others)).items()
            if name not in exclude
        }
        return State(all(state.get(name, "ok") in ("ok", _NOT_COMPARED) for name in needed), state)

    async def ready(self) -> bool:
        """Whether a scoring call would be tried with hope."""
        return (await self.check()).ready

    async def _of_scoring(self) -> dict[str, str]:
        try:
            description = await self._client.describe_model(timeout=PROBE_SECONDS)
        except ScoringError as error:
            return {INFERENCE: str(error), POLICY: _NOT_COMPARED}
        objection = _objection(self._policy.value.policy, description)
        return {INFERENCE: "ok", POLICY: objection or "ok"}


def _looked_at(components: Mapping[str, Trouble]) -> dict[str, str]:
    return {name: trouble() or "ok" for name, trouble in components.items()}


def _objection(policy: Policy, description: ModelDescription) -> str | None:
    """Why this inference service would not score for the policy, if so."""
    prompts = [prompt.text for concept in policy.concepts for prompt in concept.prompts]
    limits = description.limits
    for what, size, most in (
        ("concepts", len(policy.concepts), limits.max_concepts),
        ("prompts", len(prompts), limits.max_prompts),
        ("characters in a prompt", max(map(len, prompts), default=0), limits.max_prompt_characters),
    ):
        if size > most:
            return f"the policy has {size} {what}, inference takes {most}"
    width = description.embedding_width
    for concept in policy.concepts:
        if concept.probe and concept.probe.vector and len(concept.probe.vector) != width:
            had = len(concept.probe.vector)
            return f"the probe of {concept.name!r} has {had} values, inference's model {width}"
    return policy.mismatch(description.model.name, description.model.weights_digest)
