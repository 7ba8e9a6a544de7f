"""A text tower that fails once is not held against the concepts for good."""

import contextlib
from collections.abc import Sequence

import numpy as np
import pytest

from inference.concepts import ConceptCache, ConceptSet, PromptSet
from inference.encoder import Embeddings

CONCEPTS = ConceptSet((PromptSet(("x",), (1.0,)),))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
async def test_embeddings_that_can_not_be_are_not_kept(wrong: float) -> None:
    values = [wrong, 1.0]

    async def encode(texts: Sequence[str]) -> Embeddings:
        return np.full((len(texts), 4), values.pop(0), np.float32)

    cache = ConceptCache(encode, max_sets=4, text_batch=8)
    with contextlib.suppress(Exception):
        await cache.embed(CONCEPTS)
    assert np.isfinite((await cache.embed(CONCEPTS)).directions).all()
