"""Labels of copies are put together, and what contradicts counts for nothing."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.labelled_gathering import LabelGathering
from imagesafety.evaluation.collected import NO, UNKNOWN, YES
from imagesafety.evaluation.material import LabelledFile, Labels
from imagesafety.evaluation.scored import ScoredFile

A, B = (hashlib.sha256(name).hexdigest() for name in (b"a", b"b"))


def scored(sha256: str, labels: Labels, views: int = 1, path: str = "x.png") -> ScoredFile:
    number = int(sha256[:2], 16)
    return ScoredFile(
        LabelledFile(Path(path), labels),
        sha256,
        np.full((views, 3), number / 256, np.float32),
        np.full((views, 4), 0.5, np.float32),
        backend="b",
    )


def gathering(**overrides: bool) -> LabelGathering:
    return LabelGathering(("red", "blue"), overrides)


def test_labels_of_copies_are_put_together() -> None:
    it = gathering()
    it.add(scored(A, Labels(concepts={"red": True}), views=2))
    it.add(scored(B, Labels(reject=False)))
    it.add(scored(A, Labels(reject=True, concepts={"blue": False})))
    it.add(ScoredFile(LabelledFile(Path("bad"), Labels()), "", None, problem="broken"))
    found = it.result()
    assert found.material.rejects.tolist() == [1, 0]
    assert found.material.shows.tolist() == [[1, 0], [-1, -1]]
    assert found.material.sample.image.tolist() == [0, 0, 1]
    assert found.material.embeddings.shape == (3, 4)
    assert [hash_.hex() for hash_ in found.material.sample.hashes] == [A, B]
    assert (found.files, found.copies, found.problem_count) == (4, 1, 1)
    assert found.problems == ("bad: broken",)
    assert found.backends == ("b",)


def test_overrides_count_before_labels() -> None:
    it = gathering(**{A: True, B: False})
    it.add(scored(A, Labels(reject=False)))
    it.add(scored(B, Labels(concepts={"red": True})))
    assert it.result().material.rejects.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (Labels(reject=True, concepts={"red": True}), "accept or reject"),
        (Labels(concepts={"red": False}), "red"),
    ],
)
def test_labels_that_contradict_each_other_count_for_nothing(labels: Labels, what: str) -> None:
    it = gathering()
    first = Labels(reject=False, concepts={"red": True})
    it.add(scored(A, first))
    it.add(scored(A, labels, path="copy.png"))
    it.add(scored(A, first))
    found = it.result()
    [problem] = found.problems
    assert problem.startswith(f"copy.png: the same bytes have another label for {what} elsewhere")
    known = found.material.rejects[0], found.material.shows[0][0]
    assert known == ((UNKNOWN, YES) if what != "red" else (NO, UNKNOWN))


def test_material_without_scores_or_embeddings_is_refused() -> None:
    it = gathering()
    with pytest.raises(CalibrationError, match="no image has scores"):
        it.result()
    bare = scored(A, Labels(reject=True))
    with pytest.raises(CalibrationError, match="no embeddings"):
        it.add(ScoredFile(bare.file, A, bare.similarities))
