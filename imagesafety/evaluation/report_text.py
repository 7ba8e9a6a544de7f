"""An evaluation as a terminal shows it: what matters, in a page or two."""

from __future__ import annotations

from collections.abc import Iterator

from imagesafety.evaluation.concept_figures import Basis, ConceptFigures
from imagesafety.evaluation.curves import Missing, ThresholdRow
from imagesafety.evaluation.evaluation import Evaluation
from imagesafety.evaluation.material import shown
from imagesafety.evaluation.mistakes import Mistake
from imagesafety.evaluation.policy_figures import Answers, Rates
from imagesafety.evaluation.wording import (
    counted,
    expected_note,
    expected_words,
    responsible,
    rule_words,
    set_percent,
    where,
)
from imagesafety.policy import Partial

SHOWN = 5  # mistakes and problems of each kind
_PARTIAL = {
    Partial.REJECT: "rejects them, which is counted here",
    Partial.ACCEPT: "accepts them",
    Partial.UNDECODABLE: "leaves it to what the gateway does with files that can't be decoded, "
    "which is not counted here",
}


def report_lines(evaluation: Evaluation) -> Iterator[str]:
    """The report, line by line."""
    yield from _head(evaluation)
    policy = evaluation.policy
    yield ""
    yield "The whole policy" + (", as it is" if policy.with_shadow else "")
    yield from _rates(policy.rates)
    if policy.with_shadow is not None:
        yield "The whole policy, if rules in shadow mode were enforced"
        yield from _rates(policy.with_shadow)
    yield ""
    yield "Rules: images for which they hold, and in brackets those that no other rule catches"
    for figures in policy.rules:
        unlabelled = f", {figures.unlabelled} without a label" if figures.unlabelled else ""
        yield (
            f"  {figures.rule.action} by {rule_words(figures.rule)}: "
            f"rightly {figures.right} ({figures.only_right}), "
            f"wrongly {figures.wrong} ({figures.only_wrong}){unlabelled}"
        )
    for basis in Basis:
        of_basis = [figures for figures in evaluation.concepts if figures.basis is basis]
        if of_basis:
            yield ""
            yield f"Concepts: {basis}"
            yield from _concepts(of_basis)
    mistakes = evaluation.mistakes
    yield from _mistakes("Worst false rejects: by how much", mistakes.false_rejects)
    yield from _mistakes("Nearest false accepts: what was missing", mistakes.false_accepts)
    yield from problem_lines(evaluation)


def _head(evaluation: Evaluation) -> Iterator[str]:
    subject, counts = evaluation.subject, evaluation.counts
    model = f"{subject.model.name} ({', '.join(evaluation.backends) or 'no scores'})"
    yield f"{subject.policy_file} on {subject.source}, with {model}"
    aside = [("copies of others", counts.copies), ("without scores", counts.problems)]
    words = "; ".join(f"{what}: {number}" for what, number in aside if number)
    yield f"{counts.files} files{f' ({words})' if words else ''}, {counts.images} different images"
    parts = [f"{counts.accept} to accept", f"{counts.reject} to reject"]
    if counts.unlabelled:
        parts.append(f"{counts.unlabelled} without such a label")
    if counts.left_out:
        parts.append(f"{counts.left_out} left out because their labels contradict each other")
    yield f"  {', '.join(parts)}"
    if counts.partial:
        yield (
            f"  {counts.partial} could be looked at only in part, which no rule rejects for "
            f"{evaluation.policy.partial_accepted} of them: the policy's `partial` "
            f"{_PARTIAL[subject.policy.partial]}"
        )
    yield f"In brackets: intervals that hold with {set_percent(subject.confidence)}"


def _rates(rates: Rates) -> Iterator[str]:
    yield f"  false rejects  {counted(rates.accept.rejected)}"
    yield f"  false accepts  {counted(rates.false_accepts)}"
    for label, answers in (("to accept", rates.accept), ("to reject", rates.reject)):
        if answers.flagged.count:
            yield f"  flagged, of those {label}  {counted(answers.flagged)}"
    yield from _unlabelled(rates.unlabelled)
    expected = rates.expected
    if expected is None:
        yield "  expected precision: not known without images of both kinds"
    else:
        yield f"  expected precision  {expected_words(expected)} ({expected_note(expected)})"


def _unlabelled(answers: Answers) -> Iterator[str]:
    if answers.images and answers.rejected.count:
        yield f"  rejected, of those without a label  {counted(answers.rejected)}"


def _concepts(of_basis: list[ConceptFigures]) -> Iterator[str]:
    width = max(len(figures.concept) for figures in of_basis)
    for figures in of_basis:
        numbers = f"{figures.positives} against {figures.negatives}"
        found = figures.separation
        if found is None:
            yield f"  {figures.concept:<{width}}  {numbers}: no AUC without images of both kinds"
        else:
            yield (
                f"  {figures.concept:<{width}}  AUC {found.auc:.4f} "
                f"({found.interval.low:.4f} to {found.interval.high:.4f}), average precision "
                f"{figures.average_precision:.4f}; {numbers}"
            )
        for row in figures.thresholds:
            if row.threshold is not None:
                yield f"  {'':<{width}}    {_threshold(row)}"
        for missing in Missing:
            if rows := [row for row in figures.thresholds if row.missing is missing]:
                yield f"  {'':<{width}}    {missing}: {', '.join(map(_without_threshold, rows))}"


def _threshold(row: ThresholdRow) -> str:
    recall = f", recall {counted(row.recall)}" if row.recall is not None else ""
    rate = counted(row.false_rejects) if row.false_rejects is not None else ""
    return f"{set_percent(row.rate)}: threshold {row.threshold:.6f}, false rejects {rate}{recall}"


def _without_threshold(row: ThresholdRow) -> str:
    needed = f" (it takes {row.needed})" if row.missing is Missing.TOO_FEW else ""
    return f"{set_percent(row.rate)}{needed}"


def _mistakes(title: str, mistakes: tuple[Mistake, ...]) -> Iterator[str]:
    if not mistakes:
        return
    yield ""
    yield title
    for mistake in mistakes[:SHOWN]:
        yield f"  {mistake.margin:+.4f} {rule_words(mistake.rule)}  {shown(mistake.path)}"
        yield f"          {mistake.sha256}"
        details = [*map(responsible, mistake.concepts), *filter(None, [where(mistake)])]
        if details:
            yield f"          {'; '.join(details)}"
    if len(mistakes) > SHOWN:
        yield f"  and {len(mistakes) - SHOWN} more in the report (--report)"


def problem_lines(evaluation: Evaluation) -> Iterator[str]:
    """What could not be judged, and why."""
    if not evaluation.problem_counts:
        return
    yield ""
    yield "Problems: none of these is in the figures above"
    for (kind, label), count in sorted(evaluation.problem_counts.items()):
        of = f" of those to {label}" if label else ""
        gateway = f"; the gateway: {kind.gateway}" if kind.gateway else ""
        yield f"  {count}{of}: {kind}{gateway}"
        first = [p for p in evaluation.problems if (p.kind, p.label) == (kind, label)]
        for problem in first[:SHOWN]:
            yield f"    {problem.path}: {problem.reason}"
        if count > SHOWN:
            yield "    … (--report lists them all)"
