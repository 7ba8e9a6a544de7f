"""From what happened to what is answered. Pure code: the place where an upload is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from gateway.evidence import (
    DECIDED,
    Cause,
    Evidence,
    NotLookedAt,
    Scored,
    Unscored,
    why_partial,
)
from gateway.overrides.matching import Override, OverrideAction, OverrideSet
from imagesafety.policy import Action, Mode, Partial, Policy
from imagesafety.verdict import Hit, Verdict, judge_image


@dataclass(frozen=True)
class Decision:
    """What is answered, and why.

    `hit` is the rule that holds and is enforced, with its view. `shadow` is what rules or clients
    in shadow mode would have made of it, for `shadow_hit` if for a rule. `unscanned` is whether the
    file is let in without scores.
    """

    accepted: bool
    cause: Cause
    message: str
    hit: Hit | None = None
    shadow: Action | None = None
    shadow_hit: Hit | None = None
    override: Override | None = None
    unscanned: bool = False

    @property
    def answer(self) -> Literal["accept", "reject"]:
        """The word for it."""
        return "accept" if self.accepted else "reject"

    @property
    def rule(self) -> str | None:
        """The name of the rule that holds."""
        return self.hit.rule.name if self.hit is not None else None

    @property
    def shadow_rule(self) -> str | None:
        """The name of the rule that would have held."""
        return self.shadow_hit.rule.name if self.shadow_hit is not None else None

    @property
    def deciding_view(self) -> int | None:
        """The index of the view that a rule holds for, or would have."""
        hit = self.hit or self.shadow_hit
        return hit.view_index if hit is not None else None

    @property
    def flagged(self) -> bool:
        """Whether it is accepted, but to be reviewed."""
        return self.accepted and self.hit is not None

    @property
    def status(self) -> int:
        """The HTTP status: 503 means refused only because nobody could look."""
        if self.accepted:
            return 200
        return 406 if self.cause in (*DECIDED, Cause.UNDECODABLE) else 503

    def body(self, id: str) -> dict[str, str | None]:  # noqa: A002 - its name in the contract
        """The JSON body, for people."""
        return {
            "decision": self.answer,
            "cause": self.cause,
            "rule": self.rule,
            "id": id,
            "message": self.message,
        }


class Decider:
    """Decides by overrides, the policy's verdict, and the configured answers for the rest."""

    def __init__(self, answers: Mapping[Cause, bool]) -> None:
        """`answers` says for each cause that is not DECIDED whether such a file is accepted."""
        self._answers = answers

    def decide(
        self,
        policy: Policy,
        evidence: Evidence,
        *,
        sha256: bytes | None,
        overrides: OverrideSet,
        mode: Mode = Mode.ENFORCE,
    ) -> Decision:
        """The decision on one file. `sha256` is of its bytes, None if not all of them came.

        Overrides by bytes come first, then perceptual denies, then the verdict, of which
        perceptual allows except the rules that they were made for.
        """
        exact = overrides.exact(sha256) if sha256 is not None else None
        if exact is not None:
            decision = _by_override(exact)
        elif isinstance(evidence, NotLookedAt) or mode is Mode.OFF:
            message = "nothing is scanned for this client"
            return Decision(accepted=True, cause=Cause.POLICY, message=message, unscanned=True)
        elif isinstance(evidence, Unscored):
            decision = self._without_scores(evidence.cause, evidence.message)
        else:
            decision = self._on_scores(policy, evidence, overrides)
        return _in_shadow(decision) if mode is Mode.SHADOW else decision

    def _on_scores(self, policy: Policy, scored: Scored, overrides: OverrideSet) -> Decision:
        scores = scored.scores
        alike = overrides.alike(scores.perceptual_hashes, scores.total_frames)
        if alike.deny is not None:  # whatever the model: hashes don't depend on it
            return _by_override(alike.deny)
        if reason := policy.mismatch(scores.model.name, scores.model.weights_digest):
            return self._without_scores(Cause.ERROR, reason)
        views = [view.similarities for view in scores.views]
        try:
            verdict = judge_image(policy, views)
            excepted = {entry.rule for entry in alike.allows if entry.rule is not None}
            allowed = judge_image(policy, views, excepted=excepted) if excepted else verdict
        except ValueError as error:
            return self._without_scores(Cause.ERROR, f"scores that can't be judged: {error}")
        if scores.partial and not allowed.rejects:
            cause = why_partial(scores)
            if cause is not Cause.UNDECODABLE or policy.partial is not Partial.ACCEPT:
                return self._on_partial(policy, cause, scores.partial, allowed)
        hit, shadow = allowed.hit, allowed.shadow
        if allowed != verdict and not allowed.rejects:
            overruled = verdict.hit if hit != verdict.hit else verdict.shadow
            entry = next(e for e in alike.allows if overruled and e.rule == overruled.rule.name)
            return replace(_by_override(entry), **_hits(allowed))
        holds = f"rule {hit.rule.name} holds" if hit else "no rule holds"
        return Decision(
            accepted=not allowed.rejects,
            cause=Cause.REPEAT if scored.repeat_of is not None else Cause.POLICY,
            message=f"{holds}; in shadow, {shadow.rule.name} does" if shadow else holds,
            **_hits(allowed),
        )

    def _on_partial(self, policy: Policy, cause: Cause, why: str, seen: Verdict) -> Decision:
        """The decision on a file of which what could be seen rejects nothing."""
        message = f"only a part of it could be looked at: {why}"
        if cause is Cause.UNDECODABLE and policy.partial is Partial.REJECT:
            return Decision(accepted=False, cause=cause, message=message)
        decision = self._without_scores(cause, message)
        return decision if not decision.accepted else replace(decision, **_hits(seen))

    def _without_scores(self, cause: Cause, message: str) -> Decision:
        """The configured decision for `cause`."""
        accepted = self._answers[cause]
        return Decision(accepted, cause, message, unscanned=accepted)


class _Hits(TypedDict):
    hit: Hit | None
    shadow: Action | None
    shadow_hit: Hit | None


def _hits(verdict: Verdict) -> _Hits:
    """What a decision has of a verdict."""
    shadow = verdict.shadow
    action = shadow.rule.action if shadow is not None else None
    return _Hits(hit=verdict.hit, shadow=action, shadow_hit=shadow)


def _by_override(entry: Override) -> Decision:
    allowed = entry.action is OverrideAction.ALLOW
    done = "allowed" if allowed else "denied"
    return Decision(
        accepted=allowed,
        cause=Cause.OVERRIDE,
        message=f"{done} by override {entry.id}",
        override=entry,
    )


def _in_shadow(decision: Decision) -> Decision:
    """The decision for a client of whom everything is accepted and recorded."""
    if decision.accepted and not decision.flagged:
        return decision
    # A rule in shadow mode may ask for more than one that flags.
    by_shadow_rule = decision.accepted and decision.shadow is Action.REJECT
    would = Action.FLAG if decision.accepted and not by_shadow_rule else Action.REJECT
    return replace(
        decision,
        accepted=True,
        message=f"accepted in shadow mode, else {_PAST[would]}: {decision.message}",
        hit=None,
        shadow=would,
        shadow_hit=decision.shadow_hit if by_shadow_rule else decision.hit,
        unscanned=decision.cause not in DECIDED,
    )


_PAST = {Action.FLAG: "flagged", Action.REJECT: "rejected"}
