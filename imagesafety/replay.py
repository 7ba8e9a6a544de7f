"""What another policy would have made of recorded decisions. Pure code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imagesafety.policy import Action, Mode, Partial, Policy
from imagesafety.recorded import Recorded
from imagesafety.replay_report import Answer, Change, Flip, ReplayReport
from imagesafety.transfer import Transfer, Views
from imagesafety.verdict import Hit, judge_image

NO_POLICY = "made by a policy whose text is missing, or can't be read now"
OVERRIDE_GONE = "made by an override that was removed since"
NO_MEANING = "scores that can't be judged"

# Causes under which a part of a file was scored: no policy had a say in what the rest means.
_PASSING = ("overload", "deadline", "error")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is answered, and what is in shadow; each with the rule behind it."""

    answer: Answer
    rule: str | None = None
    shadow: Answer = Answer.ACCEPT
    shadow_rule: str | None = None


def replay(
    new: Policy,
    recorded: Iterable[Recorded],
    policies: Mapping[str, Policy],
    *,
    accepts_undecodable: bool = False,
) -> ReplayReport:
    """Judges recorded decisions by `new`.

    `policies` has the policies that they were made by, by digest; it may fill up while `recorded`
    is read. `accepts_undecodable` is the gateway's answer for files that can't be decoded.
    """
    replayed = _Replay(new, policies, accepts_undecodable)
    for item in recorded:
        replayed.add(item)
    return ReplayReport(
        total=replayed.total,
        not_comparable=dict(replayed.not_comparable.most_common()),
        approximate=replayed.approximate,
        kept_by_override=replayed.kept_by_override,
        flips=tuple(replayed.flips),
    )


@dataclass
class _Replay:
    new: Policy
    policies: Mapping[str, Policy]
    accepts_undecodable: bool
    total: int = 0
    not_comparable: Counter[str] = field(default_factory=Counter)
    approximate: int = 0
    kept_by_override: int = 0
    flips: list[Flip] = field(default_factory=list)
    transfers: dict[str, Transfer | None] = field(default_factory=dict)

    def add(self, item: Recorded) -> None:
        self.total += 1
        if item.override_stays:
            self.kept_by_override += 1
            return
        try:
            after, approximate = self._outcome(item)
        except _NotComparableError as error:
            self.not_comparable[str(error)] += 1
            return
        self.approximate += approximate
        if flip := _flip(item, _as_recorded(item), after):
            self.flips.append(flip)

    def _outcome(self, item: Recorded) -> tuple[_Outcome, bool]:
        """What comes of the new policy, and whether that is approximate."""
        transfer = self._transfer(item.policy_digest)
        if item.override_gone:
            raise _NotComparableError(OVERRIDE_GONE)
        if transfer is None:
            raise _NotComparableError(NO_POLICY)
        reason = self.new.mismatch(item.model, item.weights_digest) or transfer.missing
        if reason is not None:
            raise _NotComparableError(reason)
        if item.client_mode is Mode.OFF:
            return _as_recorded(item), False
        try:
            outcome = self._judged(item, transfer.views(item.similarities), transfer.old)
        except ValueError as error:
            raise _NotComparableError(NO_MEANING) from error
        if item.client_mode is Mode.SHADOW:
            outcome = _in_shadow(outcome)
        return outcome, transfer.is_approximate(item.similarities)

    def _transfer(self, digest: str) -> Transfer | None:
        if digest not in self.transfers:
            old = self.policies.get(digest)
            self.transfers[digest] = Transfer.between(old, self.new) if old is not None else None
        return self.transfers[digest]

    def _judged(self, item: Recorded, views: Views, old: Policy) -> _Outcome:
        """As `Decider` of the gateway decides for a client that is enforced; raises ValueError."""
        verdict = judge_image(self.new, views, excepted=item.excepted)
        if item.partial and not verdict.rejects and self._refuses_partial(item, old):
            return _Outcome(Answer.REJECT)
        return _Outcome(*_answer(verdict.hit), *_answer(verdict.shadow))

    def _refuses_partial(self, item: Recorded, old: Policy) -> bool:
        """Whether a file is rejected because only a part of it could be looked at."""
        passing = item.cause in _PASSING
        if self.new.partial is Partial.ACCEPT and not passing:
            return False
        if self.new.partial is Partial.REJECT and not passing:
            return True
        if passing or (item.cause == "undecodable" and old.partial is Partial.UNDECODABLE):
            # What the gateway was set to then counts, not what it is set to now. What was rejected
            # for another reason has a rule.
            was = _as_recorded(item)
            if item.client_mode is Mode.SHADOW:
                return was.shadow is Answer.REJECT and was.shadow_rule is None
            return was.answer is Answer.REJECT and was.rule is None
        return not self.accepts_undecodable


class _NotComparableError(Exception):
    """A decision that the new policy can't be asked about; the message is the reason."""


def _answer(hit: Hit | None) -> tuple[Answer, str | None]:
    if hit is None:
        return Answer.ACCEPT, None
    return _ANSWERS[hit.rule.action], hit.rule.name


_ANSWERS = {Action.FLAG: Answer.FLAG, Action.REJECT: Answer.REJECT}


def _as_recorded(item: Recorded) -> _Outcome:
    answer = Answer.FLAG if item.flagged else Answer.ACCEPT
    return _Outcome(
        answer=Answer.REJECT if item.decision == "reject" else answer,
        rule=item.rule,
        shadow=_ANSWERS[item.shadow] if item.shadow is not None else Answer.ACCEPT,
        shadow_rule=item.shadow_rule,
    )


def _in_shadow(outcome: _Outcome) -> _Outcome:
    """The outcome for a client of whom everything is accepted and recorded."""
    if outcome.answer is Answer.ACCEPT:
        return outcome
    if outcome.shadow.gravity > outcome.answer.gravity:
        return _Outcome(Answer.ACCEPT, None, outcome.shadow, outcome.shadow_rule)
    return _Outcome(Answer.ACCEPT, None, outcome.answer, outcome.rule)


def _flip(item: Recorded, before: _Outcome, after: _Outcome) -> Flip | None:
    """The difference: of the answers, else of those in shadow."""
    if before.answer is not after.answer:
        change, rules = Change(before.answer, after.answer), (before.rule, after.rule)
    elif before.shadow is not after.shadow:
        change = Change(before.shadow, after.shadow, in_shadow=True)
        rules = (before.shadow_rule, after.shadow_rule)
    else:
        return None
    rule = rules[0] if change.milder else rules[1]
    today = item.today(rule)
    return Flip(
        id=item.id,
        at=item.at,
        client=item.client,
        sha256=item.sha256,
        change=change,
        rule=rule,
        corrected=today == ("allow" if change.milder else "deny"),
        overridden=today == ("deny" if change.milder else "allow"),
    )
