"""Concept embeddings: averaged, cached by digest, encoded once and in small steps."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from inference.concepts import ConceptCache, ConceptSet, Definition, Probe, PromptSet
from inference.encoder import Embeddings
from inference.errors import Reason, ScoringError

VECTORS = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


class Texts:
    """A text tower of three words that counts its forward passes."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.fail = False
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, texts: Sequence[str]) -> Embeddings:
        self.passes.append(list(texts))
        await self.free.wait()
        if self.fail:
            raise RuntimeError("no")
        return np.array([VECTORS[text] for text in texts], np.float32)


def words(*texts: str) -> PromptSet:
    return PromptSet(texts, (1.0,) * len(texts))


def concept_set(*definitions: Definition) -> ConceptSet:
    return ConceptSet(definitions)


def cache(texts: Texts, max_sets: int = 2, text_batch: int = 2) -> ConceptCache:
    return ConceptCache(texts, max_sets=max_sets, text_batch=text_batch)


async def test_prompts_are_averaged_by_weight_and_renormalised() -> None:
    embedded = await cache(Texts()).embed(concept_set(PromptSet(("x", "y"), (3.0, 4.0))))
    np.testing.assert_allclose(embedded.directions, [[0.6, 0.8, 0]], atol=1e-6)
    view = np.array([[0, 1, 0]], np.float32)
    np.testing.assert_allclose(embedded.similarities(view), [[0.8]], atol=1e-6)


async def test_a_probe_is_a_direction_and_a_bias() -> None:
    embedded = await cache(Texts()).embed(concept_set(Probe((0, 0, 5), -0.25), words("x")))
    similarities = embedded.similarities(np.array([[0, 0, 1]], np.float32))
    np.testing.assert_allclose(similarities, [[0.75, 0]], atol=1e-6)


async def test_forward_passes_are_small_and_no_prompt_is_encoded_twice() -> None:
    texts = Texts()
    await cache(texts).embed(concept_set(words("x", "y"), words("y", "z"), words("x")))
    assert texts.passes == [["x", "y"], ["z"]]


async def test_the_least_recently_used_set_is_forgotten() -> None:
    texts = Texts()
    concepts = cache(texts, max_sets=2)
    for name in ("x", "y", "x", "z", "x", "y"):
        await concepts.embed(concept_set(words(name)))
    assert texts.passes == [["x"], ["y"], ["z"], ["y"]]


async def test_callers_share_one_encoding_and_a_cancelled_one_harms_nobody() -> None:
    texts = Texts()
    texts.free.clear()
    concepts = cache(texts)
    callers = [asyncio.create_task(concepts.embed(concept_set(words("x")))) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)
    texts.free.set()
    done = await asyncio.wait_for(asyncio.gather(*callers[1:]), 5)
    assert len(done) == 2
    assert texts.passes == [["x"]]


async def test_of_many_new_sets_one_forward_pass_at_a_time_is_in_the_devices_queue() -> None:
    texts = Texts()
    texts.free.clear()
    concepts = cache(texts, max_sets=3)
    callers = [
        asyncio.create_task(concepts.embed(concept_set(words(name)))) for name in ("x", "y", "z")
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    assert texts.passes == [["x"]]
    with pytest.raises(ScoringError) as caught:
        await concepts.embed(concept_set(words("x", "y")))
    assert caught.value.reason is Reason.QUEUE_FULL
    texts.free.set()
    await asyncio.gather(*callers)
    await concepts.embed(concept_set(words("x", "y")))


async def test_a_failure_is_not_remembered() -> None:
    texts = Texts()
    texts.fail = True
    concepts = cache(texts)
    with pytest.raises(RuntimeError):
        await concepts.embed(concept_set(words("x")))
    texts.fail = False
    await concepts.embed(concept_set(words("x")))
