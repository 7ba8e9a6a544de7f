"""From the similarities that one policy had to those that another one needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from imagesafety.policy import Policy

Views = Sequence[Sequence[float]]


@dataclass(frozen=True)
class _Closer:
    """When a policy looks closer: in so many tiles, always or within bands of a concept's index."""

    tiles: int
    bands: tuple[tuple[int, float, float], ...]

    def asked_by(self, view: Sequence[float]) -> int:
        """In how many tiles per side it looks closer at this view."""
        if self.tiles == 1 or not self.bands:
            return self.tiles
        within = (low <= view[index] <= high for index, low, high in self.bands)
        return self.tiles if any(within) else 1


@dataclass(frozen=True)
class Transfer:
    """What of the similarities to `old`'s concepts are those to another policy's.

    `missing` says why there is no such transfer, if so. A concept is the same if its prompts and
    weights are, or its probe, whatever its name.
    """

    old: Policy
    missing: str | None
    _indices: tuple[int, ...] | None  # None: all of them, in their order
    _before: _Closer
    _after: _Closer

    @classmethod
    def between(cls, old: Policy, new: Policy) -> Self:
        """The transfer from `old`'s concepts to those of `new`."""
        known = {concept.meaning: index for index, concept in enumerate(old.concepts)}
        unknown = [concept for concept in new.concepts if concept.meaning not in known]
        if unknown:
            names = ", ".join(concept.name for concept in unknown)
            what = "prompts or probes" if any(concept.probe for concept in unknown) else "prompts"
            nowhere = _Closer(1, ())
            return cls(old, f"new {what} need new scores: {names}", None, nowhere, nowhere)
        indices = tuple(known[concept.meaning] for concept in new.concepts)
        same = indices == tuple(range(len(old.concepts)))
        return cls(
            old,
            None,
            None if same else indices,
            _closer(old, range(len(old.concepts))),
            _closer(new, indices),
        )

    def views(self, similarities: Views) -> Views:
        """The similarities for the other policy.

        Raises ValueError if they are not as many as `old` has concepts.
        """
        for view in similarities:
            if len(view) != len(self.old.concepts):
                raise ValueError(f"{len(view)} similarities for {len(self.old.concepts)} concepts")
        if self._indices is None:
            return similarities
        return [[view[index] for index in self._indices] for view in similarities]

    def is_approximate(self, similarities: Views) -> bool:
        """Whether the policies may have looked closer at different places.

        A view is not told from its tiles here, at which nobody looks closer still.
        """
        if self._before == self._after:
            return False
        return any(
            self._before.asked_by(view) != self._after.asked_by(view) for view in similarities
        )


def _closer(policy: Policy, indices: Sequence[int]) -> _Closer:
    places = {concept.name: index for concept, index in zip(policy.concepts, indices, strict=True)}
    bands = [(places[b.concept], b.at_least, b.at_most) for b in policy.closer_when]
    return _Closer(policy.tiles, tuple(sorted(bands)))
