"""Figures of whole evaluations, computed independently with scikit-learn and by judging each."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from imagesafety.evaluation.cached_scores import CachedScores, ViewPlace
from imagesafety.evaluation.collected import Collector
from imagesafety.evaluation.concept_figures import Basis, ConceptFigures
from imagesafety.evaluation.evaluation import Evaluation, Subject, evaluation
from imagesafety.evaluation.intervals import clopper_pearson
from imagesafety.evaluation.problems import Kind
from imagesafety.evaluation.score_cache import CacheSection, ScoreCache
from imagesafety.evaluation.scored import ScoredFile
from imagesafety.scores import ModelIdentity
from imagesafety.verdict import judge_image
from tests.evaluation.scored_files import POLICY, digest, scored

SUBJECT = Subject("material", "p.toml", POLICY, ModelIdentity("demo", "sha256:0", "test"))


@pytest.fixture
def section(tmp_path: Path) -> Iterator[CacheSection]:
    with ScoreCache(tmp_path / "scores") as cache:
        yield cache.section("demo", "sha256:0", "options")


def evaluated(
    folder: Path,
    section: CacheSection,
    files: Iterable[ScoredFile],
    overrides: Mapping[str, bool] | None = None,
    subject: Subject = SUBJECT,
) -> Evaluation:
    with Collector(folder, POLICY, overrides) as collector:
        for file in files:
            collector.add(file)
            if file.similarities is not None:
                places = tuple(ViewPlace(n, n / 2) for n in range(len(file.similarities)))
                kept = CachedScores(file.similarities, places=places, media_type="image/png")
                section.put(bytes.fromhex(file.sha256), kept)
        return evaluation(subject, collector, section)


def concept(found: Evaluation, name: str, basis: Basis) -> ConceptFigures:
    [figures] = [f for f in found.concepts if (f.concept, f.basis) == (name, basis)]
    return figures


def random_files(count: int) -> list[ScoredFile]:
    rng = np.random.default_rng(4)
    files = []
    for number in range(count):
        red, triangle = rng.random(2) < 0.3
        views = rng.normal(0.3, 0.15, (int(rng.integers(1, 4)), 2))
        views[0] += np.array([red, triangle]) * 0.25
        files.append(
            scored(
                f"{number}.png",
                views.round(2).tolist(),
                reject=bool(red and triangle),
                red=bool(red),
                triangle=bool(triangle),
            )
        )
    return files


def test_concepts_as_scikit_learn_has_them(tmp_path: Path, section: CacheSection) -> None:
    files = random_files(3000)
    found = evaluated(tmp_path, section, files)
    for index, name in enumerate(("red", "triangle")):
        scores = [np.max(file.similarities[:, index]) for file in files]  # type: ignore[index]
        for basis, truth in (
            (Basis.CONCEPT, [file.file.labels.concepts[name] for file in files]),
            (Basis.DECISION, [bool(file.file.labels.reject) for file in files]),
        ):
            figures = concept(found, name, basis)
            assert (figures.positives, figures.negatives) == (sum(truth), 3000 - sum(truth))
            assert figures.separation is not None
            expected = metrics.roc_auc_score(truth, scores)
            assert figures.separation.auc == pytest.approx(expected, abs=1e-12)
            expected = metrics.average_precision_score(truth, scores)
            assert figures.average_precision == pytest.approx(expected, abs=1e-12)


def test_rates_as_judging_each_image_has_them(tmp_path: Path, section: CacheSection) -> None:
    files = random_files(2000)
    found = evaluated(tmp_path, section, files)
    verdicts = [judge_image(POLICY, file.similarities.tolist()) for file in files]  # type: ignore[union-attr]
    truth = np.array([bool(file.file.labels.reject) for file in files])
    rejected = np.array([verdict.rejects for verdict in verdicts])
    flagged = np.array([v.rule is not None and not v.rejects for v in verdicts])
    shadow = np.array([v.shadow is not None and v.shadow.rule.rejects for v in verdicts])
    rates, harder = found.policy.rates, found.policy.with_shadow
    matrix = metrics.confusion_matrix(truth, rejected)
    assert rates.accept.rejected.count == matrix[0, 1]
    assert rates.false_accepts.count == matrix[1, 0]
    interval = clopper_pearson(int(matrix[0, 1]), int((~truth).sum()))
    assert rates.accept.rejected.interval == interval
    assert rates.accept.flagged.count == (flagged & ~truth).sum()
    assert rates.reject.flagged.count == (flagged & truth).sum()
    assert harder is not None
    assert harder.accept.rejected.count == ((rejected | shadow) & ~truth).sum()
    both, shape, colour = found.policy.rules
    assert (both.wrong, both.right) == (matrix[0, 1], matrix[1, 1])
    assert (both.only_wrong, both.only_right) == (both.wrong, both.right)  # no other is enforced
    assert shape.only_wrong == (shadow & ~truth).sum()
    assert colour.rule.name == "colour"


def test_expected_precision(tmp_path: Path, section: CacheSection) -> None:
    files = [scored(f"a{n}", [[1, 1 if n < 2 else 0]], reject=False) for n in range(100)]
    files += [scored(f"r{n}", [[1, 1 if n < 8 else 0]], reject=True) for n in range(10)]
    found = evaluated(tmp_path, section, files).policy.rates.expected
    assert found is not None
    right, wrong = 0.8 * 0.0000429, 0.02 * (1 - 0.0000429)
    assert found.precision == pytest.approx(right / (right + wrong))
    assert found.interval.low < right / (right + wrong) < found.interval.high
    # Both rates at the bad ends of intervals that hold together with the confidence.
    low = clopper_pearson(8, 10, 0.95**0.5).low * 0.0000429
    high = clopper_pearson(2, 100, 0.95**0.5).high * (1 - 0.0000429)
    assert found.interval.low == pytest.approx(low / (low + high))


def test_benign_images_alone(tmp_path: Path, section: CacheSection) -> None:
    files = [scored(str(n), [[0.1 * n, 0.4]], reject=False) for n in range(10)]
    found = evaluated(tmp_path, section, files)
    assert found.policy.rates.expected is None
    assert found.policy.rates.false_accepts.share is None
    figures = concept(found, "red", Basis.DECISION)
    assert figures.separation is None
    assert all(row.threshold is None for row in figures.thresholds)


def test_a_folder_of_a_concept_beside_accepted_images(
    tmp_path: Path, section: CacheSection
) -> None:
    files = [scored("a", [[0.1, 0]], reject=False), scored("b", [[0.3, 0]], reject=False)]
    files += [scored("c", [[0.9, 0]], red=True), scored("d", [[0.2, 0]], red=True)]
    figures = concept(evaluated(tmp_path, section, files), "red", Basis.ACCEPTED)
    assert figures.separation is not None
    assert figures.separation.auc == 0.75


def test_copies_count_once_and_their_labels_complete_each_other(
    tmp_path: Path, section: CacheSection
) -> None:
    files = [
        scored("accept/1", [[0.9, 0.9]], reject=False),
        scored("accept/2", [[0.9, 0.9]], reject=False, bytes_of="accept/1"),
        scored("red/1", [[0.9, 0.9]], red=True, bytes_of="accept/1"),
        scored("accept/3", [[0.1, 0.9]], reject=False),
        scored("not-red/3", [[0.1, 0.9]], red=False, bytes_of="accept/3"),
    ]
    found = evaluated(tmp_path, section, files)
    assert (found.counts.files, found.counts.images, found.counts.copies) == (5, 2, 3)
    assert (found.policy.rates.accept.images, found.policy.rates.accept.rejected.count) == (2, 1)
    assert concept(found, "red", Basis.CONCEPT).positives == 1
    assert found.problems == ()


def test_contradictions_are_problems_and_left_out(tmp_path: Path, section: CacheSection) -> None:
    files = [
        scored("accept/1", [[0.9, 0.9]], reject=False, red=True),
        scored("reject/1", [[0.9, 0.9]], reject=True, red=True, bytes_of="accept/1"),
        scored("accept/2", [[0.9, 0.9]], reject=False, red=True),
        scored("b/2", [[0.9, 0.9]], red=False, bytes_of="accept/2"),
        scored("b/3", [[0.2, 0.2]], red=False),
    ]
    found = evaluated(tmp_path, section, files)
    assert (found.counts.left_out, found.counts.accept, found.counts.unlabelled) == (1, 1, 1)
    first, second = found.problems
    assert first.kind is second.kind is Kind.CONTRADICTION
    reasons = {problem.path: problem.reason for problem in found.problems}
    assert reasons["/material/accept/1"] == "label of it contradicts that of /material/reject/1"
    assert reasons["/material/accept/2"] == "red of it contradicts that of /material/b/2"
    figures = concept(found, "red", Basis.CONCEPT)
    assert (figures.positives, figures.negatives) == (1, 1)


def test_overrides_count_before_labels(tmp_path: Path, section: CacheSection) -> None:
    files = [
        scored("1", [[0.9, 0.9]]),
        scored("2", [[0.9, 0.9]], reject=True),
        scored("3", [[0.9, 0.9]], reject=True),
    ]
    overrides = {digest("1"): False, digest("2"): True, digest("3"): False}
    found = evaluated(tmp_path, section, files, overrides)
    assert (found.counts.accept, found.counts.reject, found.counts.left_out) == (2, 1, 0)
    assert found.problems == ()


def test_what_could_not_be_scored_is_counted_apart(tmp_path: Path, section: CacheSection) -> None:
    files = [
        scored("good", [[0, 0]], reject=False),
        scored("text", reject=False, reason="UNSUPPORTED_TYPE"),
        scored("huge", reject=True, reason="TOO_MANY_PIXELS"),
        scored("busy", reject=True, reason="QUEUE_FULL"),
    ]
    found = evaluated(tmp_path, section, files)
    assert dict(found.problem_counts) == {
        (Kind.UNDECODABLE, "accept"): 1,
        (Kind.TOO_LARGE, "reject"): 1,
        (Kind.PASSING, "reject"): 1,
    }
    assert "rejected" in Kind.UNDECODABLE.gateway
    assert found.counts.images == found.policy.rates.accept.images == 1
    assert [problem.path for problem in found.problems] == [
        "/material/text",
        "/material/huge",
        "/material/busy",
    ]


def test_the_worst_mistakes(tmp_path: Path, section: CacheSection) -> None:
    files = [
        scored("far", [[0.0, 0.0], [0.9, 0.8]], reject=False),
        scored("near", [[0.51, 0.9]], reject=False),
        scored("shadow", [[0.1, 0.95]], reject=False),
        scored("right", [[0.1, 0.1]], reject=False),
        scored("missed", [[0.1, 0.9]], reject=True),
        scored("almost", [[0.9, 0.49]], reject=True),
    ]
    mistakes = evaluated(tmp_path, section, files).mistakes
    rejects = [(m.path.name, m.rule.name, round(m.margin, 4)) for m in mistakes.false_rejects]
    assert rejects == [("shadow", "only-shape", 0.45), ("far", "both", 0.3), ("near", "both", 0.01)]
    far = mistakes.false_rejects[1]
    assert far.view == ViewPlace(1, 0.5)
    assert [(c.concept, c.threshold, c.reaches) for c in far.concepts] == [
        ("red", 0.5, True),
        ("triangle", 0.5, True),
    ]
    accepts = [(m.path.name, round(m.margin, 4)) for m in mistakes.false_accepts]
    assert accepts == [("almost", -0.01), ("missed", -0.4)]
    assert [c.concept for c in mistakes.false_accepts[0].concepts] == ["red", "triangle"]
    assert not mistakes.false_accepts[0].concepts[1].reaches


def test_nothing_at_all(tmp_path: Path, section: CacheSection) -> None:
    found = evaluated(tmp_path, section, [])
    assert found.counts.images == 0
    assert found.policy.rates.accept.rejected.share is None


def test_more_rows_than_are_buffered(tmp_path: Path, section: CacheSection) -> None:
    rng = np.random.default_rng(5)
    tops = rng.random(10_000).astype(np.float32)
    files = (scored(str(n), [[float(v), 0]], reject=n % 2 == 0) for n, v in enumerate(tops))
    found = evaluated(tmp_path, section, files)
    figures = concept(found, "red", Basis.DECISION)
    assert figures.separation is not None
    truth = np.arange(10_000) % 2 == 0
    assert figures.separation.auc == pytest.approx(metrics.roc_auc_score(truth, tops), abs=1e-12)
    assert found.policy.rates.accept.flagged.count == (tops[~truth] >= 0.5).sum()
