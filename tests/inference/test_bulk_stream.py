"""When a ScoreImages stream ends that its client does not end, and what is counted of it."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from imagesafety.v1 import scoring_pb2
from inference.admission import Admission, AdmissionLimits, Sender
from inference.bulk_stream import BulkStream
from inference.errors import Reason, ScoringError
from inference.metrics import Metrics
from inference.observed_image import ObservedCall
from inference.shared_file import SharedFile

IDLE_SECONDS = 0.02
LIMITS = AdmissionLimits(max_images=8, max_bytes=1000, max_image_bytes=100, quotas={"": 8})
Message = scoring_pb2.ScoreImagesRequest


class Played:
    """A stream on which some messages are sent, and then nothing."""

    def __init__(self, *sent: Message, draining: bool = False, left: float = 60.0) -> None:
        """`left` are the seconds to its deadline, of a minute and that."""
        self.draining, self.go = draining, asyncio.Event()
        self.metrics, now = Metrics(), time.monotonic()
        self._observed = ObservedCall(self.metrics, now - 60.0, now + left)
        self.in_score: asyncio.Queue[None] = asyncio.Queue()
        self.answered: list[str] = []
        self._sent = sent
        self._stream = BulkStream(
            self._score,
            Admission(LIMITS),
            Sender("", True),
            max_images=4,
            idle_seconds=IDLE_SECONDS,
            observed=self._observed,
            draining=lambda: self.draining,
        )

    async def _messages(self) -> AsyncIterator[Message]:
        for message in self._sent:
            yield message
        await asyncio.Event().wait()

    async def _score(self, file: SharedFile, media_type: str) -> scoring_pb2.ImageScores:
        with self._observed.image(time.monotonic()):
            self.in_score.put_nowait(None)
            await self.go.wait()
            if len(file) > 4:
                raise ScoringError(Reason.UNDECODABLE, "a test")
            return scoring_pb2.ImageScores()

    def counted(self, outcome: str, reason: str = "") -> float:
        labels = {"outcome": outcome, "reason": reason}
        return self.metrics.registry.get_sample_value("imagesafety_images_total", labels) or 0.0

    async def run(self) -> None:
        async for response in self._stream.responses(self._messages()):
            self.answered.append(response.request_id)


def image(name: str, data: bytes = b"data") -> Message:
    return Message(image=scoring_pb2.WholeImage(request_id=name, data=data))


def begun(name: str) -> Message:
    return Message(chunk=scoring_pb2.ImageChunk(request_id=name, data=b"half"))


@pytest.mark.parametrize("images", [0, 1])
async def test_a_stream_without_images_ends_after_a_while(images: int) -> None:
    stream = Played(*map(image, "abc"[:images]))
    stream.go.set()
    with pytest.raises(ScoringError) as caught:
        await asyncio.wait_for(stream.run(), 10)
    assert caught.value.reason is Reason.UPLOAD_STALLED
    assert len(stream.answered) == images


async def test_a_stream_without_images_does_not_keep_the_service_from_ending() -> None:
    stream = Played(draining=True)
    with pytest.raises(ScoringError) as caught:
        await asyncio.wait_for(stream.run(), 10)
    assert caught.value.reason is Reason.DRAINING


async def test_a_stream_whose_images_are_worked_on_goes_on() -> None:
    stream = Played(image("a"), image("b"), draining=True)
    running = asyncio.create_task(stream.run())
    done, _ = await asyncio.wait({running}, timeout=30 * IDLE_SECONDS)
    assert not done
    stream.go.set()
    with pytest.raises(ScoringError):
        await asyncio.wait_for(running, 10)
    assert sorted(stream.answered) == ["a", "b"]


async def test_an_image_in_pieces_that_stalled_does_not_keep_a_stream() -> None:
    stream = Played(begun("a"))
    with pytest.raises(ScoringError) as caught:
        await asyncio.wait_for(stream.run(), 10)
    assert caught.value.reason is Reason.UPLOAD_STALLED
    assert stream.answered == ["a"]
    assert stream.counted("refused", "UPLOAD_STALLED") == 1


@pytest.mark.parametrize(
    ("left", "ending"), [(60.0, ("cancelled", "")), (0.5, ("refused", "DEADLINE_EXCEEDED"))]
)
@pytest.mark.parametrize("more", [[begun("half")], [image("d"), image("waits for room")]])
async def test_every_image_of_a_stream_that_is_broken_off_is_counted(
    left: float, ending: tuple[str, str], more: list[Message]
) -> None:
    stream = Played(*map(image, "abc"), *more, left=left)
    running = asyncio.create_task(stream.run())
    for _ in range(2 + len(more)):
        await stream.in_score.get()
    for _ in range(10):  # until the last one is where it stays
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert stream.counted(*ending) == 3 + len(more)


async def test_each_image_is_counted_once() -> None:
    stream = Played(image("a"), image("bad", b"bad data"), image("large", bytes(101)), image(""))
    stream.go.set()
    with pytest.raises(ScoringError):
        await asyncio.wait_for(stream.run(), 10)
    assert stream.counted("scored") == 1
    assert stream.counted("failed", "UNDECODABLE") == 1
    assert stream.counted("refused", "TOO_MANY_BYTES") == 1
    assert stream.counted("failed", "INVALID_HEADER") == 1


async def test_a_mistake_of_ours_is_a_failure() -> None:
    stream = Played()
    with pytest.raises(ZeroDivisionError), stream._observed.image(0.0):
        _ = 1 / 0
    assert stream.counted("failed") == 1
