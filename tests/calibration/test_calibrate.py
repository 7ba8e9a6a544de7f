"""From scores to a policy file: what changes, what is said of it, and how it is carried."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from imagesafety.calibration.array_verdict import rejected
from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.calibrate import Budget, Calibrated, Costs, Occasion, calibrate
from imagesafety.calibration.carry import Origin
from imagesafety.calibration.gathered import (
    Gathered,
    Gathering,
    is_all_benign,
    labelled_files,
    scored_fully,
)
from imagesafety.calibration.report import material_lines, result_lines, threshold_lines
from imagesafety.calibration.sample import Sample, SampleBuilder
from imagesafety.calibration.written import save, written
from imagesafety.evaluation.material import LabelledFile, Labels, MaterialError
from imagesafety.evaluation.scored import ScoredFile
from imagesafety.policy import Partial, Policy
from imagesafety.policy_file import parse_policy
from imagesafety.provenance import Material, provenance_warnings
from imagesafety.provenance_file import find_provenance
from tests.calibration.policies import random_sample

OLD, NEW = "sha256:" + 64 * "0", "sha256:" + 64 * "1"
TEXT = f"""\
# Our policy. Thresholds are from a hunch: 0.1 looks right.
model = "old/model"   # ours
weights_digest = "{OLD}"

[concepts]
a = ["a thing 0.1"]
b = ["b"]
"c d" = ["c"]

[[adjustments]]
when = {{ b = 0.15 }}  # corrected by hand
add = {{ a = -0.02 }}

[groups.one]
at_least = 1
thresholds = {{ a = 0.1, b = 0.12 }}
critical = {{ a = 0.2 }}

[groups.watched.thresholds]
"c d" = 0.14

[[rules]]
name = "stop"
all = ["one"]
mode = "shadow"

[[rules]]
name = "watch"
all = ["watched"]
action = "flag"
"""
POLICY = parse_policy(TEXT)
AT = datetime(2026, 5, 1, tzinfo=UTC)
HERE = Occasion(AT, "0.1.0", "old/model", OLD)
BUDGET = Budget(0.005)


def gathered(benign: Sample, bad: Sample | None = None) -> Gathered:
    none = SampleBuilder(benign.similarities.shape[1]).build()
    bad = none if bad is None else bad
    material = Material(len(benign) + len(bad), len(benign), len(bad), 0, "0" * 64)
    return Gathered(benign, bad, material, 0, (), ("pytorch-cpu",))


def calibrated(policy: Policy = POLICY, seed: int = 1) -> Calibrated:
    return calibrate(policy, gathered(random_sample(seed, 2000, 3)), BUDGET, HERE)


def test_the_file_keeps_its_form_and_only_numbers_change() -> None:
    found = calibrated()
    text = written(POLICY, found.policy, found.provenance)
    below = text.split("\n\n", 1)[1].split("\n")
    before = TEXT.split("\n")
    changed = {before[n] for n in range(len(before)) if below[n] != before[n]}
    assert changed == {"thresholds = { a = 0.1, b = 0.12 }", "critical = { a = 0.2 }"}
    assert parse_policy(text).groups == found.policy.groups
    assert find_provenance(text) is not None
    assert provenance_warnings(parse_policy(text), found.provenance) == []


def test_missing_weights_are_named_and_a_second_calibration_replaces_the_first() -> None:
    policy = parse_policy(TEXT.replace(f'weights_digest = "{OLD}"\n', ""))
    found = calibrate(
        replace(policy, weights_digest=OLD), gathered(random_sample(1, 2000, 3)), BUDGET, HERE
    )
    text = written(policy, found.policy, found.provenance)
    assert f'model = "old/model"   # ours\nweights_digest = "{OLD}"\n' in text
    again = calibrated(parse_policy(text), seed=2)
    second = written(parse_policy(text), again.policy, again.provenance)
    assert second.count("#: calibrated =") == 1
    assert find_provenance(second) == find_provenance(
        written(POLICY, again.policy, again.provenance)
    )


def test_provenance_says_how_rare_everything_is_and_what_was_counted() -> None:
    found = calibrated()
    provenance = found.provenance
    counted = provenance.false_rejects
    fresh = random_sample(9, 50_000, 3)
    assert counted.low <= rejected(found.policy, fresh).mean() <= counted.high <= 0.005
    assert counted.images == len(random_sample(1, 2000, 3).split_for_map()[1])
    assert set(provenance.measured) == {
        ("groups", "one", "thresholds", "a"),
        ("groups", "one", "thresholds", "b"),
        ("groups", "one", "critical", "a"),
        ("groups", "watched", "thresholds", "c d"),
        ("adjustments", 0, "when", "b"),
    }
    values = random_sample(1, 2000, 3).split_for_map()[0].maxima[:, 1]
    share = provenance.measured["adjustments", 0, "when", "b"].share
    assert share == pytest.approx((values >= 0.15).mean(), abs=0.005)
    assert provenance.spreads["a"].deviation == pytest.approx(0.036, abs=0.004)


def test_what_is_said_of_too_few_images() -> None:
    found = calibrate(POLICY, gathered(random_sample(1, 300, 3)), Budget(1e-4), HERE)
    assert found.provenance.false_rejects.count == 0
    warning = found.provenance.warnings[0]
    assert "too few benign images to promise at most 1 in 10 000" in warning
    assert ": 37 444 are needed, 300 are there" in warning
    assert any(f"warning: {warning}" == line for line in result_lines(found))
    with pytest.raises(CalibrationError, match="99 different ones with scores; 100 are the least"):
        calibrate(POLICY, gathered(random_sample(1, 99, 3)), BUDGET, HERE)


def test_a_policy_that_rejects_nothing_cannot_be_calibrated() -> None:
    policy = parse_policy(TEXT.replace('mode = "shadow"', 'mode = "off"'))
    with pytest.raises(CalibrationError, match="no rule of the policy rejects"):
        calibrated(policy)


def test_images_to_be_rejected_say_what_is_missed_and_costs_choose() -> None:
    bad = random_sample(3, 500, 3)
    bad = Sample(bad.similarities + np.float32(0.15), bad.image, bad.hashes)
    material = gathered(random_sample(1, 2000, 3), bad)
    by_budget = calibrate(POLICY, material, BUDGET, HERE).provenance
    assert by_budget.false_accepts is not None
    assert by_budget.false_accepts.images == 500
    by_costs = calibrate(POLICY, material, Costs(1.0, 50.0, 0.01), HERE).provenance
    assert by_costs.budget is None
    assert "costs 50 times as much as a false reject and 1 % of uploads" in by_costs.goal
    assert by_costs.false_accepts is not None
    assert by_costs.false_accepts.images == len(bad.halves()[1])


def other_model(sample: Sample) -> Sample:
    """The same images by a model whose cosines lie elsewhere and spread half as much."""
    moved = (0.3 + sample.similarities / 2).astype(np.float32)
    return Sample(moved, sample.image, sample.hashes)


def test_carried_to_another_model_everything_is_as_rare_as_it_was() -> None:
    found = calibrated()
    old = parse_policy(written(POLICY, found.policy, found.provenance))
    there = replace(HERE, model="new/model", weights_digest=NEW)
    policy = replace(old, model="new/model", weights_digest=NEW)
    images = gathered(other_model(random_sample(5, 3000, 3)))
    origin = Origin(old, find_provenance(old.text))
    new = calibrate(policy, images, BUDGET, there, origin=origin)
    [before], [after] = old.adjustments, new.policy.adjustments
    assert after.when["b"] == pytest.approx(0.3 + before.when["b"] / 2, abs=0.006)
    assert after.add["a"] == pytest.approx(before.add["a"] / 2, rel=0.1)
    flagged = new.policy.groups["watched"].thresholds["c d"]
    assert flagged == pytest.approx(0.3 + 0.14 / 2, abs=0.006)
    fresh = other_model(random_sample(6, 50_000, 3))
    assert rejected(new.policy, fresh).mean() <= new.provenance.false_rejects.high
    text = written(old, new.policy, new.provenance)
    assert 'model = "new/model"   # ours' in text
    assert tomllib.loads(text)["weights_digest"] == NEW
    table = "\n".join(threshold_lines(old, new, origin))
    assert "watched: not moved, since no rule rejects by it" in table


def test_carried_to_another_model_thresholds_keep_their_balance() -> None:
    text = TEXT.replace("b = 0.12 }", "b = 0.16 }")
    found = calibrated(parse_policy(text))
    old = parse_policy(written(parse_policy(text), found.policy, found.provenance))
    there = replace(HERE, model="new/model", weights_digest=NEW)
    policy = replace(old, model="new/model", weights_digest=NEW)
    images = gathered(other_model(random_sample(5, 3000, 3)))

    def shares(result: Calibrated) -> float:
        a, b = (result.provenance.measured["groups", "one", "thresholds", name] for name in "ab")
        return a.share / b.share

    origin = Origin(old, find_provenance(old.text))
    kept = calibrate(policy, images, BUDGET, there, origin=origin)
    assert shares(found) > 3
    assert shares(kept) == pytest.approx(shares(found), rel=0.1)
    equal = calibrate(policy, images, replace(BUDGET, keeps_balance=False), there, origin=origin)
    assert shares(equal) == pytest.approx(1, rel=0.1)


def seen_in_part(sample: Sample, count: int) -> Sample:
    partial = np.arange(len(sample)) < count
    return Sample(sample.similarities, sample.image, sample.hashes, partial)


def test_what_was_seen_in_part_counts_as_the_policy_says() -> None:
    images = gathered(seen_in_part(random_sample(1, 2000, 3), 2))
    found = calibrate(POLICY, images, BUDGET, HERE)
    assert any(
        "2 benign images could be looked at only in part" in w for w in found.provenance.warnings
    )
    strict = calibrate(replace(POLICY, partial=Partial.REJECT), images, BUDGET, HERE)
    assert not any("in part" in warning for warning in strict.provenance.warnings)
    looser, stricter = (it.policy.groups["one"].thresholds["a"] for it in (found, strict))
    assert stricter > looser
    many = gathered(seen_in_part(random_sample(1, 2000, 3), 500))
    with pytest.raises(CalibrationError, match="in part: the policy rejects those"):
        calibrate(replace(POLICY, partial=Partial.REJECT), many, BUDGET, HERE)


@pytest.mark.parametrize(
    ("edited", "reason"), [("", "was never calibrated"), ("0.15", "was changed since")]
)
def test_what_was_not_measured_is_not_carried(edited: str, reason: str) -> None:
    found = calibrated()
    text = written(POLICY, found.policy, found.provenance) if edited else TEXT
    old = parse_policy(text.replace("{ b = 0.15 }", "{ b = 0.16 }"))
    there = replace(HERE, model="new/model", weights_digest=NEW)
    policy = replace(old, model="new/model", weights_digest=NEW)
    images = gathered(other_model(random_sample(5, 3000, 3)))
    with pytest.raises(CalibrationError, match=f"{reason}.*under its own model, old/model, first"):
        calibrate(policy, images, BUDGET, there, origin=Origin(old, find_provenance(text)))


def scored(name: str, sha256: str, reject: bool | None, *, problem: str = "") -> ScoredFile:
    similarities = None if problem else np.zeros((2, 1), np.float32)
    file = LabelledFile(Path(name), Labels(reject=reject))
    return ScoredFile(file, sha256, similarities, problem=problem, backend="pytorch-cpu")


def gathered_of(*files: ScoredFile, overrides: Mapping[str, bool] | None = None) -> Gathered:
    gathering = Gathering(SampleBuilder(1), SampleBuilder(1), overrides or {})
    for file in files:
        gathering.add(file)
    return gathering.result()


def test_copies_count_once_and_problems_are_told() -> None:
    def gathered_in(order: int) -> Gathered:
        files = [
            scored("a", "aa", False),
            scored("b", "aa", False),
            scored("c", "bb", True),
            scored("d", "", False, problem="cannot be read"),
        ]
        return gathered_of(*files[::order])

    found = gathered_in(1)
    assert (len(found.benign), len(found.bad), found.copies) == (1, 1, 1)
    assert found.material.digest == gathered_in(-1).material.digest
    lines = list(material_lines(found))
    assert lines[0].startswith("4 files: 1 different benign images, 1 to be rejected, 1 copies")
    assert lines[1] == "  d: cannot be read"


def test_the_same_bytes_labelled_both_ways_are_left_out() -> None:
    found = gathered_of(
        scored("a", "aa", False),
        scored("c", "cc", False),
        scored("b", "aa", True),
        scored("a2", "aa", False),
        scored("d", "dd", True),
    )
    assert [found.benign.hashes, found.bad.hashes] == [(b"\xcc",), (b"\xdd",)]
    [problem] = found.problems
    assert problem.startswith("b: labelled reject, and the same bytes have the other label")


def test_overrides_count_before_labels_that_contradict_too() -> None:
    overrides = {"aa": True, "bb": False, "cc": True}
    found = gathered_of(
        scored("a", "aa", False),
        scored("a2", "aa", True),
        scored("b", "bb", True),
        scored("c", "cc", None),
        scored("d", "dd", None),
        scored("e", "ee", False),
        overrides=overrides,
    )
    assert (len(found.benign), len(found.bad), found.copies) == (2, 2, 1)
    assert found.material.files == 6


def test_a_folder_without_labels_is_all_benign(tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    (tmp_path / "2026" / "x.png").touch()
    assert is_all_benign(tmp_path, ["red"])
    assert [file.labels.reject for file in labelled_files(tmp_path, ["red"], {})] == [False]
    (tmp_path / "red").mkdir()
    assert not is_all_benign(tmp_path, ["red"])


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("Reject", "written reject;"),
        ("BENIGN", "written benign;"),
        ("accepted", "written accept;"),
        ("Bad", "written reject;"),
        ("RED", "written red;"),
        ("Not-Red", "written not-red;"),
        ("not-blue", "no concept blue (it has red)"),
    ],
)
def test_a_folder_that_is_nearly_a_label_is_not_taken_for_harmless(
    tmp_path: Path, name: str, called: str
) -> None:
    (tmp_path / "2026").mkdir()
    (tmp_path / name).mkdir()
    with pytest.raises(MaterialError, match=f"{name}: looks like a label") as caught:
        list(labelled_files(tmp_path, ["red"], {}))
    assert called in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scores_are_asked_for_with_every_tile() -> None:
    policy = parse_policy(TEXT + "[detail]\ntiles = 2\nmargin = 0.01\n")
    assert (scored_fully(policy).tiles, scored_fully(policy).closer_when) == (2, ())
    assert scored_fully(POLICY) == POLICY


def test_files_are_written_whole_and_not_over_others(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    save(path, "one", replacing=False)
    with pytest.raises(FileExistsError):
        save(path, "two", replacing=False)
    path.chmod(0o640)
    save(path, "three", replacing=True)
    assert path.read_text() == "three"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["p.toml"]
