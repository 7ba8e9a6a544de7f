"""Random policies and similarities, and pictures that are only numbers."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
from hypothesis import strategies as st

from imagesafety.calibration.sample import Floats, Sample, SampleBuilder
from imagesafety.policy import Action, Adjustment, Concept, Group, Mode, Policy, Prompt, Rule

CONCEPTS = ("a", "b", "c", "d")
# Few values, so that similarities meet thresholds exactly and corrections matter.
VALUES = [round(step * 0.05, 2) for step in range(-4, 9)]
values = st.sampled_from(VALUES)


@st.composite
def groups(draw: st.DrawFn, name: str) -> Group:
    inside = draw(st.lists(st.sampled_from(CONCEPTS), min_size=1, unique=True))
    thresholds = {concept: draw(values) for concept in inside}
    critical = {
        concept: draw(st.sampled_from([value for value in VALUES if value >= threshold]))
        for concept, threshold in thresholds.items()
        if draw(st.booleans())
    }
    pairs = list(itertools.combinations(inside, 2))
    twins = draw(st.lists(st.sampled_from(pairs), max_size=2, unique=True)) if pairs else []
    most = sum(3 if concept in critical else 1 for concept in inside)
    return Group(name, draw(st.integers(1, most)), thresholds, critical, tuple(twins))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    some = st.dictionaries(st.sampled_from(CONCEPTS), values, min_size=1)
    names = ("one", "two", "three")[: draw(st.integers(1, 3))]
    rules = [
        Rule(
            f"rule {number}",
            tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True))),
            draw(st.sampled_from(list(Action))),
            draw(st.sampled_from(list(Mode))),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    adjustments = draw(st.lists(st.builds(Adjustment, when=some, add=some), max_size=3))
    return Policy(
        model="demo",
        weights_digest=None,
        concepts=tuple(Concept(name, (Prompt(name),)) for name in CONCEPTS),
        adjustments=tuple(adjustments),
        groups={name: draw(groups(name)) for name in names},
        rules=tuple(rules),
        digest="",
    )


@st.composite
def images(draw: st.DrawFn) -> list[Floats]:
    view = st.lists(values, min_size=len(CONCEPTS), max_size=len(CONCEPTS))
    views = st.lists(view, min_size=1, max_size=3)
    return [np.array(some, np.float32) for some in draw(st.lists(views, min_size=1, max_size=5))]


def sample_of(images: list[Floats]) -> Sample:
    """These images, with hashes made up."""
    concepts = images[0].shape[1]
    hashed = [(hashlib.sha256(b"%d" % n).digest(), image) for n, image in enumerate(images)]
    return SampleBuilder.of(concepts, hashed).build()


def random_sample(seed: int, count: int, concepts: int, hits: float = 0.0) -> Sample:
    """Images of one view whose similarities are correlated, as cosines of real pictures are."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 0.02, (count, 1))
    similarities = 0.1 + common + rng.normal(0, 0.03, (count, concepts))
    similarities[rng.random(count) < hits] += 0.2
    hashes = [hashlib.sha256(b"%d %d" % (seed, n)).digest() for n in range(count)]
    return Sample(similarities.astype(np.float32), np.arange(count), tuple(hashes))
