"""The policy that uploads are judged by, and what comes of a new one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from imagesafety.client import ConceptSet
from imagesafety.policy import Policy


@dataclass(frozen=True)
class PolicyInForce:
    """A policy with what is sent along with each image for it."""

    policy: Policy

    @cached_property
    def concepts(self) -> ConceptSet:
        """Its concepts, as they travel."""
        return ConceptSet(self.policy.concepts)


class CurrentPolicy:
    """Which policy is in force. An upload takes `value` once, so that none is judged by two."""

    def __init__(self, policy: Policy) -> None:
        self.value = PolicyInForce(policy)
