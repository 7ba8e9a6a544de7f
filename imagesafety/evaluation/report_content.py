"""An evaluation as JSON has it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from imagesafety.evaluation.concept_figures import ConceptFigures
from imagesafety.evaluation.curves import Curve, ThresholdRow
from imagesafety.evaluation.evaluation import Evaluation
from imagesafety.evaluation.intervals import Interval
from imagesafety.evaluation.material import shown
from imagesafety.evaluation.mistakes import Mistake
from imagesafety.evaluation.policy_figures import Answers, ExpectedPrecision, Rates, RuleFigures
from imagesafety.evaluation.proportion import Proportion


def report_content(evaluation: Evaluation) -> dict[str, object]:
    """Everything of it, as plain values. Shares are from 0 to 1; what nobody knows is null."""
    subject, counts, policy = evaluation.subject, evaluation.counts, evaluation.policy
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": subject.source,
        "policy": {
            "file": subject.policy_file,
            "digest": subject.policy.digest,
            "concepts_digest": subject.policy.concepts_digest,
        },
        "model": {
            "name": subject.model.name,
            "weights_digest": subject.model.weights_digest,
            "backends": evaluation.backends,
        },
        "confidence": subject.confidence,
        "images": {
            "files": counts.files,
            "without_scores": counts.problems,
            "different": counts.images,
            "copies": counts.copies,
            "accept": counts.accept,
            "reject": counts.reject,
            "unlabelled": counts.unlabelled,
            "contradicting": counts.left_out,
            "partial": counts.partial,
            "partial_not_rejected": policy.partial_accepted,
        },
        "rates": _rates(policy.rates),
        "rates_with_shadow_rules": _rates(policy.with_shadow) if policy.with_shadow else None,
        "rules": [_rule(figures) for figures in policy.rules],
        "concepts": [_concept(figures) for figures in evaluation.concepts],
        "mistakes": {
            "false_rejects": [_mistake(found) for found in evaluation.mistakes.false_rejects],
            "false_accepts": [_mistake(found) for found in evaluation.mistakes.false_accepts],
        },
        "problems": {
            "counts": list(_problem_counts(evaluation)),
            "first": [
                {
                    "kind": problem.kind.name.lower(),
                    "path": problem.path,
                    "sha256": problem.sha256 or None,
                    "label": problem.label or None,
                    "reason": problem.reason,
                }
                for problem in evaluation.problems
            ],
        },
    }


def _problem_counts(evaluation: Evaluation) -> Iterator[dict[str, object]]:
    for (kind, label), count in sorted(evaluation.problem_counts.items()):
        yield {
            "kind": kind.name.lower(),
            "meaning": kind.value,
            "label": label or None,
            "count": count,
            "gateway": kind.gateway or None,
        }


def _interval(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _proportion(share: Proportion | None) -> dict[str, object] | None:
    if share is None or not share.total:
        return None
    return {
        "share": share.share,
        "count": share.count,
        "of": share.total,
        "interval": _interval(share.interval),
    }


def _rates(rates: Rates) -> dict[str, object]:
    return {
        "false_rejects": _proportion(rates.accept.rejected),
        "false_accepts": _proportion(rates.false_accepts),
        "accept": _answers(rates.accept),
        "reject": _answers(rates.reject),
        "unlabelled": _answers(rates.unlabelled),
        "expected_precision": _expected(rates.expected) if rates.expected else None,
    }


def _expected(expected: ExpectedPrecision) -> dict[str, object]:
    """Without a false reject there is only the interval: 1 would be no more than its upper end."""
    return {
        "prevalence": expected.prevalence,
        "precision": None if expected.is_only_bounded else expected.precision,
        "interval": _interval(expected.interval),
    }


def _answers(answers: Answers) -> dict[str, object]:
    return {
        "images": answers.images,
        "rejected": _proportion(answers.rejected),
        "flagged": _proportion(answers.flagged),
    }


def _rule(figures: RuleFigures) -> dict[str, object]:
    return {
        "name": figures.rule.name,
        "action": figures.rule.action,
        "mode": figures.rule.mode,
        "wrong": figures.wrong,
        "right": figures.right,
        "unlabelled": figures.unlabelled,
        "only_because_of_it": {"wrong": figures.only_wrong, "right": figures.only_right},
    }


def _concept(figures: ConceptFigures) -> dict[str, object]:
    found = figures.separation
    return {
        "concept": figures.concept,
        "basis": figures.basis.name.lower(),
        "compares": figures.basis.value,
        "positives": figures.positives,
        "negatives": figures.negatives,
        "auc": found and found.auc,
        "auc_interval": found and _interval(found.interval),
        "average_precision": figures.average_precision,
        "thresholds": [_threshold(row) for row in figures.thresholds],
        "curve": _curve(figures.curve) if figures.curve is not None else None,
    }


def _threshold(row: ThresholdRow) -> dict[str, object]:
    return {
        "false_reject_rate": row.rate,
        "threshold": row.threshold,
        "missing": row.missing and row.missing.name.lower(),
        "false_rejects": _proportion(row.false_rejects),
        "recall": _proportion(row.recall),
        "negatives_needed": row.needed,
    }


def _curve(curve: Curve) -> dict[str, object]:
    return {
        "thresholds": [round(float(value), 7) for value in curve.thresholds],
        "false_reject_rate": [float(f"{value:.6g}") for value in curve.false_rejects],
        "recall": [float(f"{value:.6g}") for value in curve.recall],
        "precision": [float(f"{value:.6g}") for value in curve.precision],
    }


def _mistake(mistake: Mistake) -> dict[str, object]:
    view = mistake.view
    return {
        "path": shown(mistake.path),
        "sha256": mistake.sha256,
        "rule": mistake.rule.name,
        "mode": mistake.rule.mode,
        "margin": mistake.margin,
        "view": view
        and {
            "frame_index": view.frame_index,
            "frame_time": view.frame_time,
            "region": list(view.region),
            "background": view.background or None,
        },
        "concepts": [
            {
                "group": found.group,
                "concept": found.concept,
                "similarity": found.similarity,
                "threshold": found.threshold,
                "critical": found.critical,
                "reached": found.reaches,
            }
            for found in mistake.concepts
        ],
    }
