"""From what happened to what is answered. Pure code: the place where an upload is decided."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import grpc

from imagesafety.client import ScoringError
from imagesafety.policy import Partial, Policy, judge_image
from imagesafety.scores import ImageScores


class Cause(StrEnum):
    """Why the decision is what it is."""

    POLICY = "policy"
    UNDECODABLE = "undecodable"
    OVERLOAD = "overload"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass(frozen=True)
class Decision:
    """What is answered, and why. `rule` names the rule of the policy that holds, if any does."""

    accepted: bool
    cause: Cause
    rule: str | None
    message: str
    id: str

    @property
    def unscanned(self) -> bool:
        """Whether the file is let in without scores."""
        return self.accepted and self.cause is not Cause.POLICY

    @property
    def status(self) -> int:
        """The HTTP status: 503 means refused only because nobody could look."""
        if self.accepted:
            return 200
        return 406 if self.cause in (Cause.POLICY, Cause.UNDECODABLE) else 503

    @property
    def body(self) -> dict[str, str | None]:
        """The JSON body, for people."""
        return {
            "decision": "accept" if self.accepted else "reject",
            "cause": self.cause,
            "rule": self.rule,
            "id": self.id,
            "message": self.message,
        }


class TooLargeError(Exception):
    """The file is over a limit of the inference service."""


# What the inference service says of a file that it can't look at.
_UNDECODABLE = frozenset(
    {"UNSUPPORTED_TYPE", "TYPE_MISMATCH", "TRUNCATED", "UNDECODABLE"}
    | {"EMPTY_IMAGE", "DECODER_CRASHED", "DECODER_TIMEOUT", "DECODER_OUT_OF_MEMORY"}
)
_TOO_LARGE = frozenset({"TOO_MANY_BYTES", "TOO_MANY_PIXELS", "TOO_MANY_FRAMES", "TOO_LONG"})
_CAUSES = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Cause.OVERLOAD,
    grpc.StatusCode.UNAVAILABLE: Cause.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Cause.DEADLINE,
}


class Decider:
    """Applies the policy to scores, and the configured answers to everything else."""

    def __init__(self, policy: Policy, answers: Mapping[Cause, bool]) -> None:
        """`answers` says for each cause but POLICY whether such a file is accepted."""
        self.policy = policy
        self._answers = answers

    def on_scores(self, scores: ImageScores) -> Decision:
        """The decision on an image that was scored."""
        if reason := self.policy.mismatch(scores.model.name, scores.model.weights_digest):
            return self.without_scores(Cause.ERROR, reason)
        try:
            verdict = judge_image(self.policy, [view.similarities for view in scores.views])
        except ValueError as error:
            return self.without_scores(Cause.ERROR, f"scores that can't be judged: {error}")
        if scores.partial and not verdict.rejects and self.policy.partial is not Partial.ACCEPT:
            return self._on_partial(scores.partial)
        if verdict.rule is None:
            return _decision(accepted=True, cause=Cause.POLICY, message="no rule holds")
        return _decision(
            accepted=not verdict.rejects,
            cause=Cause.POLICY,
            rule=verdict.rule.name,
            message=f"rule {verdict.rule.name} holds",
        )

    def _on_partial(self, why: str) -> Decision:
        """The decision on a file whose visible part is harmless."""
        message = f"only a part of it could be looked at: {why}"
        if self.policy.partial is Partial.REJECT:
            return _decision(accepted=False, cause=Cause.UNDECODABLE, message=message)
        return self.without_scores(Cause.UNDECODABLE, message)

    def on_failure(self, error: ScoringError) -> Decision:
        """The decision on an image that inference gave no scores for.

        Raises TooLargeError for an image over a limit.
        """
        if error.reason in _TOO_LARGE:
            raise TooLargeError(error.message)
        if error.reason in _UNDECODABLE:
            return self.without_scores(Cause.UNDECODABLE, error.message)
        return self.without_scores(_CAUSES.get(error.code, Cause.ERROR), error.message)

    def without_scores(self, cause: Cause, message: str) -> Decision:
        """The configured decision for `cause`."""
        return _decision(accepted=self._answers[cause], cause=cause, message=message)


def _decision(*, accepted: bool, cause: Cause, message: str, rule: str | None = None) -> Decision:
    return Decision(accepted, cause, rule, message, secrets.token_hex(16))
