"""What calibration came to, for people."""

from __future__ import annotations

from collections.abc import Iterator

from imagesafety.calibration.calibrate import Calibrated
from imagesafety.calibration.carry import Origin
from imagesafety.calibration.gathered import PROBLEMS_KEPT, Gathered
from imagesafety.policy import Group, Policy
from imagesafety.provenance import Measured
from imagesafety.provenance_report import described, grouped, share_in_words
from imagesafety.toml_lines import Place


def material_lines(gathered: Gathered) -> Iterator[str]:
    """What was scored."""
    found = gathered.material
    parts = [f"{grouped(found.benign)} different benign images"]
    if found.rejected:
        parts.append(f"{grouped(found.rejected)} to be rejected")
    if gathered.copies:
        parts.append(f"{grouped(gathered.copies)} copies, which count once")
    if found.problems:
        parts.append(f"{grouped(found.problems)} without scores")
    yield f"{grouped(found.files)} files: {', '.join(parts)}"
    yield from (f"  {problem}" for problem in gathered.problems)
    if found.problems > PROBLEMS_KEPT:
        yield f"  and {grouped(found.problems - PROBLEMS_KEPT)} more"


def threshold_lines(old: Policy, calibrated: Calibrated, origin: Origin | None) -> Iterator[str]:
    """A table of old and new thresholds, each with the share of benign images that reach it."""
    width = max(len(concept.name) for concept in old.concepts) + len(" (critical)")
    yield f"{'':<{width + 2}}{'old':>9} {'of benign':>16}   {'new':>9} {'of benign':>16}"
    for name, group in calibrated.policy.groups.items():
        level = calibrated.provenance.levels.get(name)
        note = (
            f"to where at most {share_in_words(level)} of benign images reach a concept"
            if level is not None
            else "not moved, since no rule rejects by it"
        )
        yield f"{name}: {note}"
        for place, concept, before, after in _rows(name, old.groups[name], group):
            was = _before(place, concept, before, calibrated, origin)
            new = calibrated.provenance.measured[place]
            kind = " (critical)" if place[2] == "critical" else ""
            yield (
                f"  {concept + kind:<{width}}{before:>9.5f} {_share(was):>16}   "
                f"{after:>9.5f} {_share(new):>16}"
            )


def _rows(
    name: str, old: Group, new: Group
) -> Iterator[tuple[tuple[str, str, str, str], str, float, float]]:
    for kind, before, after in (
        ("thresholds", old.thresholds, new.thresholds),
        ("critical", old.critical, new.critical),
    ):
        for concept, value in after.items():
            yield ("groups", name, kind, concept), concept, before[concept], value


def _before(
    place: Place, concept: str, value: float, calibrated: Calibrated, origin: Origin | None
) -> Measured | None:
    """How rare an old value was: by today's images, or by what is known under the old model."""
    if origin is None:
        found = calibrated.percentiles[concept].share(value)
        return Measured(value, found.share, found.extrapolated)
    known = origin.provenance
    return known.measured.get(place) if known is not None else None


def _share(measured: Measured | None) -> str:
    if measured is None:
        return "not known"
    return f"{'~ ' if measured.extrapolated else ''}{share_in_words(measured.share)}"


def result_lines(calibrated: Calibrated) -> Iterator[str]:
    """What the whole policy does now."""
    if (before := calibrated.before) is not None:
        yield (
            f"The thresholds until now rejected {grouped(before.count)} of the "
            f"{grouped(before.images)} benign images that rejects were counted on."
        )
    yield from list(described(calibrated.provenance))[1:]
    yield "Rules in shadow mode count as if they were enforced; rules that only flag do not count."
    yield from (f"warning: {warning}" for warning in calibrated.provenance.warnings)


def next_lines(output: str) -> Iterator[str]:
    """What to do with it."""
    yield f"{output} is written. Next:"
    yield f"  imagesafety policy check {output}    says what it is worth, also later"
    yield f"  imagesafety policy replay {output}   what it would have made of recent decisions"
    yield '  a rule with mode = "shadow" records what it would reject, and rejects nothing yet'
