"""What is asked beside a policy's concepts, and what follows from the answers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.calibration.directions import products, recovered
from imagesafety.calibration.prompt_columns import asked_of
from imagesafety.policy import Concept, Policy, Prompt
from tests.calibration.embedded import LIMITS, policy_with, unit


def policy(*counts: int, names: str = "abcdef") -> Policy:
    concepts = tuple(
        Concept(name, tuple(Prompt(f"{name}{n}", 1 + n) for n in range(count)))
        for name, count in zip(names, counts, strict=False)
    )
    return replace(policy_with('["x"]'), concepts=concepts)


def test_the_policys_own_concepts_come_first_and_unchanged() -> None:
    own = policy(3, 1, 2)
    asked = asked_of(own, ("n", "m"), LIMITS)
    assert asked.policy.concepts[:3] == own.concepts
    assert asked.neutral is not None
    neutral = asked.policy.concepts[asked.neutral]
    assert [prompt.text for prompt in neutral.prompts] == ["n", "m"]
    assert set(asked.prompts) == {"a", "c"}
    for name, columns in asked.prompts.items():
        for number, column in enumerate(columns.singles):
            assert asked.policy.concepts[column].prompts == (Prompt(f"{name}{number}"),)
        for pair, column in columns.pairs.items():
            texts = tuple(Prompt(f"{name}{number}") for number in pair)
            assert asked.policy.concepts[column].prompts == texts
    names = [concept.name for concept in asked.policy.concepts]
    assert len(set(names)) == len(names)


def test_names_that_are_taken_are_not_taken_again() -> None:
    own = policy(2, 2)
    concepts = tuple(replace(c, name=f"#{n}") for n, c in enumerate(own.concepts))
    names = [c.name for c in asked_of(replace(own, concepts=concepts), (), LIMITS).policy.concepts]
    assert len(set(names)) == len(names)


def test_no_more_is_asked_than_the_service_takes() -> None:
    for most_concepts, most_prompts in itertools.product((3, 5, 8, 20), (9, 12, 20, 60)):
        limits = replace(LIMITS, max_concepts=most_concepts, max_prompts=most_prompts)
        asked = asked_of(policy(3, 1, 2), ("n",), limits)
        assert len(asked.policy.concepts) <= most_concepts
        assert sum(len(concept.prompts) for concept in asked.policy.concepts) <= most_prompts
        assert {*asked.prompts, *asked.left_out} == {"a", "c"}


@given(st.integers(2, 5), st.integers(0, 1000))
def test_cosines_between_prompts_follow_from_pairs(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(0, 1, (count, 16)) + 1.0)
    asked = asked_of(policy(count), (), LIMITS)
    embeddings = unit(rng.normal(0, 1, (50, 16)))
    by_text = {f"a{n}": row for n, row in enumerate(directions)}
    rows = [
        unit(np.sum([prompt.weight * by_text[prompt.text] for prompt in c.prompts], axis=0))
        for c in asked.policy.concepts
    ]
    similarities = (embeddings @ np.array(rows).T).astype(np.float32)
    cosines = asked.prompts["a"].cosines(similarities)
    np.testing.assert_allclose(cosines, directions @ directions.T, atol=1e-4)


def test_directions_are_exact_where_views_span_the_space() -> None:
    rng = np.random.default_rng(1)
    texts = unit(rng.normal(0, 1, (3, 24)))
    embeddings = unit(rng.normal(0, 0.1, (100, 24)) + np.eye(24)[0]).astype(np.float32)
    found = recovered(embeddings, (embeddings @ texts.T).astype(np.float32))
    assert found.is_whole
    np.testing.assert_allclose(found.rows, texts, atol=1e-4)
    fresh = unit(rng.normal(0, 1, (50, 24))).astype(np.float32)
    np.testing.assert_allclose(products(fresh, found.rows[0]), fresh @ texts[0], atol=1e-4)


def test_of_fewer_views_the_directions_hold_for_those() -> None:
    rng = np.random.default_rng(2)
    texts = unit(rng.normal(0, 1, (2, 24)))
    embeddings = unit(rng.normal(0, 1, (10, 24))).astype(np.float32)
    similarities = (embeddings @ texts.T).astype(np.float32)
    found = recovered(embeddings, similarities)
    assert not found.is_whole
    np.testing.assert_allclose(embeddings @ found.rows.T, similarities, atol=1e-4)
    assert np.linalg.norm(found.rows[0]) == pytest.approx(
        np.linalg.norm(found.rows[0] @ np.linalg.pinv(embeddings) @ embeddings), rel=1e-3
    )
