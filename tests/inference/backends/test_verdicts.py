"""The copy of the shipped policies, and the way they are judged, agree with the gateway's."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.policy_file import load_policy
from imagesafety.verdict import adjusted, judge_view, named
from inference.backends.tower import Embeddings
from inference.backends.verdicts import SHIPPED, VerdictCheck, shipped_policy

POLICIES = sorted((Path(__file__).parents[3] / "policies").glob("*.toml"))


def test_the_copy_is_that_of_policies() -> None:
    documents = [tomllib.loads(path.read_text()) for path in POLICIES]
    expected = {document.pop("model"): document for document in documents}
    assert json.loads(SHIPPED.read_text()) == expected


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
@given(data=st.data())
def test_it_is_judged_as_the_gateway_does(path: Path, data: st.DataObject) -> None:
    policy = load_policy(path)
    copy = shipped_policy(policy.model)
    assert copy is not None
    assert copy.concepts == {c.name: [p.text for p in c.prompts] for c in policy.concepts}
    width = len(policy.concepts)
    cosines = st.one_of(st.floats(0.1, 0.3), st.sampled_from([0.188, 0.19, 0.21, 0.22, 0.225]))
    row = data.draw(st.lists(cosines, min_size=width, max_size=width))
    similarities = named(policy, row)
    values = adjusted(policy, similarities)
    groups = {name for name, group in policy.groups.items() if group.holds(values)}
    expected = {rule.name for rule in policy.rules if groups.issuperset(rule.groups)}
    assert copy.rules_that_hold(similarities) == expected
    assert bool(expected) == (judge_view(policy, row) is not None)


def axes(texts: Sequence[str]) -> Embeddings:
    """A model in which each concept of the demo's policy is an axis."""
    words = ("red", "triangle", "blue", "circle")
    return np.eye(4, dtype=np.float32)[[next(i for i in range(4) if words[i] in t) for t in texts]]


def test_changed_verdicts_are_counted() -> None:
    check = VerdictCheck("demo", axes)
    reject = np.array([[0.2, 0.2, 0, 0]], np.float32)
    accept = np.array([[0.2, 0.1, 0, 0]], np.float32)
    assert check.changed(np.concatenate([reject, accept]), np.concatenate([accept, accept])) == 1
    assert check.changed(reject, np.array([[0.9, 0.11, 0.5, 0]], np.float32)) == 0
    assert VerdictCheck("another", axes).changed(reject, accept) == 0
