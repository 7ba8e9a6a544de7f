"""From scored material and a policy to the calibrated policy and where it comes from. Pure code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from imagesafety.calibration.array_verdict import rejected
from imagesafety.calibration.budget import CalibrationError, Promise, within_budget
from imagesafety.calibration.carry import Origin, carried, carried_balance
from imagesafety.calibration.gathered import Gathered
from imagesafety.calibration.percentiles import Percentiles, percentiles_by_concept
from imagesafety.calibration.sample import Sample
from imagesafety.calibration.strictness import EQUAL, Balance, Family, balance_of
from imagesafety.calibration.trade import Costs as Costs  # others import it from here
from imagesafety.calibration.trade import Counted, best_trade
from imagesafety.evaluation.intervals import clopper_pearson
from imagesafety.policy import Partial, Policy
from imagesafety.provenance import Measured, Provenance, Rate, Spread, decisions_digest, places
from imagesafety.provenance_report import grouped, share_in_words

FEWEST_BENIGN = 100


@dataclass(frozen=True)
class Budget:
    """The share of benign images that may be rejected, to be promised with `confidence`.

    If it `keeps_balance`, thresholds that were rarer than others on benign images stay so.
    """

    share: float
    confidence: float = 0.95
    keeps_balance: bool = True


@dataclass(frozen=True)
class Occasion:
    """Who calibrates, when, and for which model."""

    at: datetime
    version: str
    model: str
    weights_digest: str
    max_frames: int | None = None  # of an animation, that the service looks at


def occasion_now(policy: Policy, max_frames: int) -> Occasion:
    """Now, by this version, for the model of a policy that names its weights."""
    return Occasion(
        at=datetime.now(UTC),
        version=metadata.version("imagesafety"),
        model=policy.model,
        weights_digest=policy.weights_digest or "",
        max_frames=max_frames,
    )


@dataclass(frozen=True)
class Calibrated:
    """The new policy. `before` counts the old one's rejects of the same benign images."""

    policy: Policy
    provenance: Provenance
    percentiles: Mapping[str, Percentiles]
    before: Counted | None


@dataclass(frozen=True)
class _Chosen:
    """What a search came to; rejects were counted on the benign images of `counted_on`."""

    policy: Policy
    percentiles: Mapping[str, Percentiles]
    levels: Mapping[str, float]
    counted_on: Sample
    goal: str
    false_rejects: Rate
    false_accepts: Rate | None
    warnings: tuple[str, ...] = ()


def calibrate(
    policy: Policy,
    gathered: Gathered,
    goal: Budget | Costs,
    occasion: Occasion,
    *,
    origin: Origin | None = None,
) -> Calibrated:
    """Moves the policy's thresholds to the goal.

    `policy` is for the model that gave the scores; `origin` is what it was for another model.
    Raises CalibrationError.
    """
    _check(policy, gathered)
    if isinstance(goal, Budget):
        chosen = _by_budget(policy, gathered, goal, origin)
    else:
        chosen = _by_costs(policy, gathered, goal, origin)
    percentiles = chosen.percentiles
    measured = {}
    for place, (concept, value) in places(chosen.policy).items():
        found = percentiles[concept].share(value)
        measured[place] = Measured(value, found.share, found.extrapolated)
    provenance = Provenance(
        calibrated=occasion.at,
        imagesafety=occasion.version,
        model=occasion.model,
        weights_digest=occasion.weights_digest,
        backend=", ".join(gathered.backends),
        concepts_digest=chosen.policy.concepts_digest,
        decisions_digest=decisions_digest(chosen.policy),
        material=gathered.material,
        goal=chosen.goal,
        budget=goal.share if isinstance(goal, Budget) else None,
        levels=chosen.levels,
        false_rejects=chosen.false_rejects,
        false_accepts=chosen.false_accepts,
        spreads={name: Spread(found.mean, found.deviation) for name, found in percentiles.items()},
        measured=measured,
        warnings=chosen.warnings + tuple(_warnings(policy, gathered, chosen.levels, measured)),
        max_frames=occasion.max_frames,
    )
    before = None
    if origin is None:
        count = int(rejected(policy, chosen.counted_on).sum())
        before = Counted(count, len(chosen.counted_on))
    return Calibrated(chosen.policy, provenance, percentiles, before)


def _check(policy: Policy, gathered: Gathered) -> None:
    if not Family(policy, {}).moved:
        raise CalibrationError("no rule of the policy rejects, so there is nothing to calibrate")
    if len(gathered.benign) < FEWEST_BENIGN:
        raise CalibrationError(
            f"too few benign images to calibrate by: {len(gathered.benign)} different ones with "
            f"scores; {FEWEST_BENIGN} are the least"
        )


def _base(
    policy: Policy,
    percentiles: Mapping[str, Percentiles],
    origin: Origin | None,
) -> Policy:
    """The policy whose thresholds are then moved, with everything else for its model."""
    if origin is None:
        return policy
    return carried(policy, origin, percentiles, Family(policy, {}).moved)


def _by_budget(
    policy: Policy,
    gathered: Gathered,
    goal: Budget,
    origin: Origin | None,
) -> _Chosen:
    learned, rest = gathered.benign.split_for_map()
    percentiles = percentiles_by_concept([concept.name for concept in policy.concepts], learned)
    balance = _balance(policy, percentiles, origin) if goal.keeps_balance else EQUAL
    family = Family(_base(policy, percentiles, origin), percentiles, balance)
    found, promise = within_budget(family, rest, goal.share, goal.confidence)
    false_accepts = None
    if len(gathered.bad):
        missed = len(gathered.bad) - int(rejected(found, gathered.bad).sum())
        false_accepts = _rate(Counted(missed, len(gathered.bad)), goal.confidence)
    return _Chosen(
        policy=found,
        percentiles=percentiles,
        levels={name: promise.level * family.most_common(name) for name in family.moved},
        counted_on=rest,
        goal=f"at most {share_in_words(goal.share)} of benign images rejected",
        # From 0 on, since a budget is a bound from one side: fewer are no broken promise.
        false_rejects=Rate(
            promise.rejected, promise.images, 0.0, promise.at_most, promise.confidence
        ),
        false_accepts=false_accepts,
        warnings=() if promise.is_kept else (_too_few(promise, len(gathered.benign)),),
    )


def _balance(
    policy: Policy, percentiles: Mapping[str, Percentiles], origin: Origin | None
) -> Balance:
    """Another model's thresholds say nothing of this one's, but how rare they were does."""
    if origin is None:
        return balance_of(policy, percentiles)
    return carried_balance(origin, Family(policy, percentiles).moved)


def _too_few(promise: Promise, images: int) -> str:
    return (
        f"too few benign images to promise at most {share_in_words(promise.budget)}: "
        f"{grouped(promise.wanted)} are needed, {grouped(images)} are there; what can be promised "
        f"is at most {share_in_words(promise.at_most, digits=4)}"
    )


def _by_costs(
    policy: Policy,
    gathered: Gathered,
    costs: Costs,
    origin: Origin | None,
) -> _Chosen:
    trade = best_trade(
        policy,
        gathered.benign,
        gathered.bad,
        costs,
        lambda percentiles: _base(policy, percentiles, origin),
    )
    ratio = f"{costs.false_accept / costs.false_reject:.4g}"
    return _Chosen(
        policy=trade.policy,
        percentiles=trade.family.percentiles,
        levels=trade.levels,
        counted_on=trade.held_out,
        goal=f"the lowest cost where a false accept costs {ratio} times as much as a false reject "
        f"and {share_in_words(costs.prevalence)} of uploads are to be rejected",
        false_rejects=_rate(trade.false_rejects, 0.95),
        false_accepts=_rate(trade.false_accepts, 0.95),
    )


def _rate(counted: Counted, confidence: float) -> Rate:
    interval = clopper_pearson(counted.count, counted.images, confidence)
    return Rate(counted.count, counted.images, interval.low, interval.high, confidence)


def _warnings(
    policy: Policy,
    gathered: Gathered,
    levels: Mapping[str, float],
    measured: Mapping[tuple[str | int, ...], Measured],
) -> Iterator[str]:
    beyond = {
        str(place[-1])
        for place, found in measured.items()
        if found.extrapolated and place[0] == "groups" and place[1] in levels
    }
    if beyond:
        yield (
            f"no benign image reaches the thresholds of {', '.join(sorted(beyond))}: their "
            "percentiles are extrapolated"
        )
    if (partial := int(gathered.benign.partial.sum())) and policy.partial is Partial.UNDECODABLE:
        yield (
            f"{grouped(partial)} benign images could be looked at only in part: what the gateway "
            "does with files that can't be decoded, it does with those, and no budget counts that"
        )
    if gathered.material.problems:
        yield f"{grouped(gathered.material.problems)} files had no scores and count for nothing"
    if len(gathered.backends) > 1:
        yield f"scores of several backends were mixed: {', '.join(gathered.backends)}"
