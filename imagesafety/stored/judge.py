"""What the policy of now makes of what was seen: now, or when another policy was in force."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, parse_policy
from imagesafety.scores import ModelIdentity
from imagesafety.stored.allowances import Allowances
from imagesafety.stored.finding import Finding, Kind, find
from imagesafety.stored.seen import Seen
from imagesafety.stored.state import Known, Scoring, State
from imagesafety.transfer import Transfer

_SETTLED = (Kind.HIT, Kind.CLEAN, Kind.NOT_MEDIA)


class Judge:
    """One policy and one list of overrides, applied to the scores of one model."""

    def __init__(
        self,
        policy: Policy,
        allowances: Allowances,
        model: ModelIdentity,
        state: State,
        terms: str = "",
    ) -> None:
        """`terms` says on what it depends which files the service can look at."""
        self.policy, self.allowances = policy, allowances
        self._state = state
        asked = [policy.concepts_digest, policy.tiles, *map(repr, policy.closer_when)]
        weights = f"{model.name} {model.weights_digest}"
        self._scoring = state.scoring(
            _digest(weights, asked, allowances.by_look, terms),
            weights,
            policy.text,
            has_hashes=allowances.by_look,
            terms=terms,
        )
        self._judging = state.judging(_digest(policy.digest, allowances.digest))
        self._transfers: dict[int, Transfer | None] = {}

    def of(self, seen: Seen, version: str) -> Known:
        """What is to be recorded of a file that was just looked at."""
        finding = find(self.policy, self.allowances, seen)
        return Known(version, self._scoring.id, self._judging, seen, finding)

    def again(self, known: Known) -> Known | None:
        """What holds now of a file that was looked at before; None if that takes another look."""
        seen = self._seen(known)
        if seen is None:
            return None
        if (known.scoring, known.judging) == (self._scoring.id, self._judging):
            finding = known.finding
        else:
            finding = find(self.policy, self.allowances, seen)
        if seen.may_pass and not _is_settled(finding):
            return None
        return Known(known.version, self._scoring.id, self._judging, seen, finding)

    def _seen(self, known: Known) -> Seen | None:
        """What was seen then, to the concepts of now."""
        if known.scoring == self._scoring.id:
            return known.seen
        old = self._state.scoring_of(known.scoring)
        if old.model != self._scoring.model:
            return None
        if not known.seen.views:
            # What was too large or of no known type may be looked at under other limits, or by a
            # newer version. That is one more look at all of these, and not one in each round.
            return known.seen if old.terms == self._scoring.terms else None
        transfer = self._transfer(old)
        if (
            transfer is None
            or transfer.missing
            or transfer.is_approximate(known.seen.views)
            or (self._scoring.has_hashes and not old.has_hashes)
        ):
            return None
        return replace(known.seen, views=transfer.views(known.seen.views))

    def _transfer(self, old: Scoring) -> Transfer | None:
        if old.id not in self._transfers:
            try:
                before = parse_policy(old.policy)
            except PolicyError:  # of a version with another grammar
                self._transfers[old.id] = None
            else:
                self._transfers[old.id] = Transfer.between(before, self.policy)
        return self._transfers[old.id]


def _is_settled(finding: Finding) -> bool:
    """Whether another look would change nothing, even if it showed more."""
    return finding.kind in _SETTLED


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
