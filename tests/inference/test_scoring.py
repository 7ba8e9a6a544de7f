"""An image between its decoder and the device, in ways that the real ones seldom go."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from inference.batch_schedule import DeadlineUnmeetableError
from inference.batcher import EncoderFailedError
from inference.concepts import ConceptCache, ConceptSet, Probe
from inference.decode_times import DecodeTimes
from inference.decoder.media import Background, DecodedMedia, Facts, Region, Request, View
from inference.decoder_pool import FilesAhead
from inference.encoder import Embeddings
from inference.errors import Reason, ScoringError
from inference.scoring import Band, Detail, Scorer, ScoringOptions
from inference.shared_file import SharedFile
from inference.work_queue import Priority, QueueFullError

FACTS = Facts("image/png", 1, 1, 1, 1, 0.0, "")
VIEW = View(0, 0.0, Region(0, 0, 1, 1), Background.NONE)
CLOSER = Detail(2, (Band(0, -1.0, 1.0),))
OPTIONS = ScoringOptions(
    concepts=ConceptSet((Probe((1.0, 0.0), 0.0),)),
    priority=Priority.INTERACTIVE,
    client="",
    return_embeddings=False,
    max_frames=1,
    detail=CLOSER,
    return_hashes=False,
)


class Decoders:
    """Decodes anything; the closer look as it is told."""

    def __init__(self, failure: ScoringError | None) -> None:
        self._failure = failure

    @contextlib.asynccontextmanager
    async def decoded(
        self, file: SharedFile, request: Request, **_: object
    ) -> AsyncIterator[DecodedMedia]:
        if request.closer and self._failure is not None:
            raise self._failure
        yield DecodedMedia(FACTS, (VIEW,), (b"",))


class Device:
    """Encodes the first look; the closer one as it is told."""

    def __init__(self, failure: Exception | None) -> None:
        self._failure = failure
        self._looks = 0

    async def submit(self, pixels: Sequence[bytes], **_: object) -> Embeddings:
        self._looks += 1
        if self._looks > 1 and self._failure is not None:
            raise self._failure
        return np.array([[1.0, 0.0]], np.float32)


async def no_texts(texts: Sequence[str]) -> Embeddings:
    raise AssertionError


@pytest.mark.parametrize(
    ("device", "decoder", "passing"),
    [
        (QueueFullError(), None, Reason.QUEUE_FULL),
        (DeadlineUnmeetableError(), None, Reason.DEADLINE_EXCEEDED),
        (EncoderFailedError(), None, Reason.ENCODER_FAILED),
        (None, ScoringError(Reason.QUEUE_FULL, "full"), Reason.QUEUE_FULL),
        (None, ScoringError(Reason.DECODER_TIMEOUT, "no time"), None),
        (None, ScoringError(Reason.UNDECODABLE, "broken"), None),
    ],
)
async def test_a_closer_look_that_fails_says_whether_that_may_pass(
    device: Exception | None, decoder: ScoringError | None, passing: Reason | None
) -> None:
    decoders: Any = Decoders(decoder)
    batcher: Any = Device(device)
    concepts = ConceptCache(no_texts, max_sets=1, text_batch=1)
    scorer = Scorer(decoders, batcher, concepts, frame_seconds=1.0)
    file: Any = None
    scored = await scorer.score(file, "", OPTIONS, 0.0)
    assert scored.facts.partial.startswith("the closer look failed")
    assert scored.passing is passing
    assert len(scored.views) == 1


class Busy:
    """Decoders and a device with so much ahead of an image."""

    def __init__(self, files: int, seconds: float, lower: int = 0, decoders: int = 1) -> None:
        self.times, self.waiting = DecodeTimes(decoders), files
        self.times.observe(0.1, 4)
        self._ahead, self._seconds = FilesAhead(files, lower), seconds
        self.asked: list[int] = []

    def ahead(self, *_: object) -> FilesAhead:
        return self._ahead

    def wait(self, views: int, **_: object) -> float:
        self.asked.append(views)
        return self._seconds

    def is_late(self, needed: float, left: float) -> bool:
        return needed > left


@pytest.mark.parametrize(
    ("files", "device", "left", "refused"),
    [
        (0, 9.0, 1.0, False),  # nothing is ahead: whatever the estimate says, it is tried
        (5, 0.1, 1.0, False),
        (20, 0.1, 1.0, True),  # the decoders need two seconds
        (5, 2.0, 1.0, True),
        (20, 9.0, math.inf, False),
    ],
)
async def test_what_is_ahead_of_an_image_decides_whether_it_is_taken(
    files: int, device: float, left: float, refused: bool
) -> None:
    busy: Any = Busy(files, device)
    scorer = Scorer(busy, busy, ConceptCache(no_texts, max_sets=1, text_batch=1), frame_seconds=1)
    deadline = asyncio.get_running_loop().time() + left
    with pytest.raises(ScoringError) if refused else contextlib.nullcontext() as caught:
        scorer.refuse_late(OPTIONS, deadline)
    assert caught is None or caught.value.reason is Reason.QUEUE_FULL
    assert busy.asked in ([], [4 * files + 1])


async def test_bulk_work_that_is_being_decoded_is_not_ahead_of_an_upload_at_the_device() -> None:
    busy: Any = Busy(files=15, seconds=0.1, lower=15, decoders=16)
    busy.times.observe(1000.0, 16)
    scorer = Scorer(busy, busy, ConceptCache(no_texts, max_sets=1, text_batch=1), frame_seconds=1)
    scorer.refuse_late(OPTIONS, asyncio.get_running_loop().time() + 1.0)
    assert busy.asked == [1]
