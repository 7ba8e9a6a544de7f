"""What is asked of the service so that better scores can be looked for, in one pass over the files.

Beside the policy's concepts these are concepts of one prompt each, of pairs of prompts, and of the
neutral prompts. From a pair's similarities follows the cosine between its two prompts, which says
how long a weighted sum of them is. Pure code.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imagesafety.calibration.sample import Floats
from imagesafety.policy import Concept, Policy, Prompt
from imagesafety.scores import Limits

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PromptColumns:
    """Where the similarities to a concept's single prompts are, and those to pairs of them."""

    singles: tuple[int, ...]
    pairs: Mapping[tuple[int, int], int]

    def cosines(self, similarities: Floats) -> Matrix:
        """Those between the prompts (K, K), as the similarities of any views tell.

        A pair's direction is the sum of both, over its length: so similarities to the pair are
        smaller than the sum of both by that length, in every view.
        """
        result = np.eye(len(self.singles))
        for (one, other), column in self.pairs.items():
            both = similarities[:, column].astype(np.float64)
            added = similarities[:, [self.singles[one], self.singles[other]]]
            length = added.astype(np.float64).sum(axis=1) @ both / max(both @ both, 1e-12)
            result[one, other] = result[other, one] = np.clip(length**2 / 2 - 1, -1, 1)
        return result


@dataclass(frozen=True)
class Asked:
    """The policy with more concepts, and where what is; the policy's own come first."""

    policy: Policy
    prompts: Mapping[str, PromptColumns]
    neutral: int | None
    left_out: tuple[str, ...]
    """Concepts whose prompts are not looked at one by one: that would be more than is taken."""


def asked_of(policy: Policy, neutral: Sequence[str], limits: Limits) -> Asked:
    """What to ask for this policy, within what the service takes."""
    names = _fresh_names(policy)
    added: list[Concept] = []
    room = limits.max_concepts - len(policy.concepts)
    prompts_left = limits.max_prompts - sum(len(concept.prompts) for concept in policy.concepts)
    neutral_column = None
    if neutral and room > 0 and prompts_left >= len(neutral):
        neutral_column = len(policy.concepts)
        added.append(Concept(next(names), tuple(map(Prompt, neutral))))
        room, prompts_left = room - 1, prompts_left - len(neutral)
    found, left_out = {}, []
    for concept in policy.concepts:
        count = len(concept.prompts)
        if count < 2:
            continue
        pairs = list(itertools.combinations(range(count), 2))
        if count + len(pairs) > room or count + 2 * len(pairs) > prompts_left:
            left_out.append(concept.name)
            continue
        room, prompts_left = room - count - len(pairs), prompts_left - count - 2 * len(pairs)
        start = len(policy.concepts) + len(added)
        texts = [Prompt(prompt.text) for prompt in concept.prompts]
        added += [Concept(next(names), (text,)) for text in texts]
        added += [Concept(next(names), (texts[one], texts[other])) for one, other in pairs]
        places = {pair: start + count + index for index, pair in enumerate(pairs)}
        found[concept.name] = PromptColumns(tuple(range(start, start + count)), places)
    more = replace(policy, concepts=(*policy.concepts, *added))
    return Asked(more, found, neutral_column, tuple(left_out))


def _fresh_names(policy: Policy) -> itertools.chain[str]:
    taken = {concept.name for concept in policy.concepts}
    numbered = (f"#{number}" for number in itertools.count())
    return itertools.chain(name for name in numbered if name not in taken)
