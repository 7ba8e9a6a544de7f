"""Hides drawings in every way, and has the inference service and the policy judge each file."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.evasion.subjects import File, draw_subject
from benchmarks.evasion.transforms import Transform
from benchmarks.serving.processes import BenchmarkError
from imagesafety.client import ConceptSet, ScoringClient, ScoringError
from imagesafety.policy import Detail, Policy
from imagesafety.verdict import judge_image

MARGIN = 0.05
DETAILS = {
    "as it is": None,
    "tiles 2": Detail(2, None),
    "tiles 3": Detail(3, None),
    f"margin {MARGIN:g}": Detail(3, MARGIN),
}
"""The ways to look at a file: the policy's `detail`."""

CALLS = 8  # at once
TIMEOUT = 600.0  # the machine may be busy, and a rate does not depend on time


@dataclass(frozen=True)
class Finding:
    """Whether a policy with this detail rejects a drawing that was hidden in this way."""

    transform: Transform
    rejectable: bool
    detail: str
    rejected: bool


@dataclass(frozen=True)
class _Hidden:
    transform: Transform
    rejectable: bool
    file: File


def hidden(
    transforms: Sequence[Transform], number: int, seed: int, *, with_clips: bool
) -> Iterator[_Hidden]:
    """Two drawings, one that is to be rejected and one that is not, hidden in every way."""
    for rejectable in (True, False):
        subject = draw_subject(
            np.random.default_rng((seed, number, rejectable)), rejectable=rejectable
        )
        for transform in transforms:
            if with_clips or not transform.clip:
                own = zlib.crc32(transform.name.encode())
                rng = np.random.default_rng((seed, number, rejectable, own))
                yield _Hidden(transform, rejectable, transform.apply(subject, rng))


async def findings(
    target: str,
    policy: Policy,
    transforms: Sequence[Transform],
    *,
    pictures: int,
    clips: int,
    seed: int,
) -> AsyncIterator[Finding]:
    """All of them, picture by picture.

    Raises BenchmarkError for a file that can't be scored, or only in part.
    """
    policies = {name: replace(policy, detail=detail) for name, detail in DETAILS.items()}
    room = asyncio.Semaphore(CALLS)
    async with ScoringClient(target) as client:
        judge = _Judge(client, policy, room)

        def draw(number: int) -> list[_Hidden]:
            return list(hidden(transforms, number, seed, with_clips=number < clips))

        drawing = asyncio.create_task(asyncio.to_thread(draw, 0))
        for number in range(pictures):
            files = await drawing
            if number + 1 < pictures:
                drawing = asyncio.create_task(asyncio.to_thread(draw, number + 1))
            calls = [
                judge.finding(one, name, detailed)
                for one in files
                for name, detailed in policies.items()
            ]
            for finding in await asyncio.gather(*calls):
                yield finding


class _Judge:
    """Asks the service, so many calls at once, and then the policy."""

    def __init__(self, client: ScoringClient, policy: Policy, room: asyncio.Semaphore) -> None:
        self._client, self._room = client, room
        self._concepts = ConceptSet(policy.concepts)

    async def finding(self, one: _Hidden, name: str, policy: Policy) -> Finding:
        async with self._room:
            try:
                scores = await self._client.score_image(
                    _chunks(one.file.data),
                    concepts=self._concepts,
                    timeout=TIMEOUT,
                    media_type=one.file.media_type,
                    tiles=policy.tiles,
                    closer_when=policy.closer_when,
                    bulk=True,
                )
            except ScoringError as error:
                raise BenchmarkError(f"{one.transform.name}: {error}") from error
        if scores.partial:
            raise BenchmarkError(f"{one.transform.name}: {scores.partial}")
        verdict = judge_image(policy, [view.similarities for view in scores.views])
        return Finding(one.transform, one.rejectable, name, verdict.rejects)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data
