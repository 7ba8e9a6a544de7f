"""Bulk work over two replicas, one of which is lost in the middle."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest

from imagesafety.bulk import BulkImage, BulkOptions, BulkScorer
from imagesafety.client import ConceptSet
from imagesafety.policy import Concept, Prompt
from tests.e2e.calls import RED
from tests.e2e.processes import inference, off_loop
from tests.media import drawn, still

IMAGES = 600
LARGE = 6 * 1024 * 1024  # goes in several messages
OPTIONS = BulkOptions(ConceptSet([Concept("red", (Prompt("something red"),))]))
PICTURES = {
    True: still(drawn(("red", "triangle"), size=100)),
    False: still(drawn(("blue", "circle"), size=100)),
}


def is_red(number: int) -> bool:
    return number % 3 == 0


async def pictures() -> AsyncIterator[BulkImage[int]]:
    for number in range(IMAGES):
        # What follows a PNG's end makes other bytes, and no other picture.
        rest = bytes(LARGE) if number % 100 == 50 else str(number).encode()
        yield BulkImage(number, PICTURES[is_red(number)] + rest, "image/png")
    yield BulkImage(IMAGES, b"no picture at all")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
async def test_every_image_has_one_result_although_a_replica_is_lost(how: signal.Signals) -> None:
    found: dict[int, bool | str] = {}
    async with off_loop(inference()) as lost, off_loop(inference()) as other:
        target = f"ipv4:{lost.address},{other.address}"
        try:
            async with BulkScorer(target, OPTIONS) as scorer:
                async for result in scorer.score(pictures()):
                    assert result.key not in found
                    if result.scores is not None:
                        [view] = result.scores.views
                        found[result.key] = view.similarities[0] > RED
                    elif result.error is not None:
                        found[result.key] = result.error.reason
                    if len(found) == 100:
                        lost.process.send_signal(how)
        finally:
            lost.process.send_signal(signal.SIGCONT)
    assert found == {number: is_red(number) for number in range(IMAGES)} | {
        IMAGES: "UNSUPPORTED_TYPE"
    }
