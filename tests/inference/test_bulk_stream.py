"""When a ScoreImages stream ends that its client does not end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from imagesafety.v1 import scoring_pb2
from inference.admission import Admission, AdmissionLimits, Sender
from inference.bulk_stream import BulkStream
from inference.errors import Reason, ScoringError
from inference.shared_file import SharedFile

IDLE_SECONDS = 0.02
Message = scoring_pb2.ScoreImagesRequest


class Played:
    """A stream on which some messages are sent, and then nothing."""

    def __init__(self, *sent: Message, draining: bool = False) -> None:
        self.draining, self.go = draining, asyncio.Event()
        self.answered: list[str] = []
        self._sent = sent
        self._stream = BulkStream(
            self._score,
            Admission(AdmissionLimits(max_images=8, max_bytes=1000, max_image_bytes=100)),
            Sender("", True),
            max_images=4,
            idle_seconds=IDLE_SECONDS,
            failed=lambda _: None,
            draining=lambda: self.draining,
        )

    async def _messages(self) -> AsyncIterator[Message]:
        for message in self._sent:
            yield message
        await asyncio.Event().wait()

    async def _score(self, file: SharedFile, media_type: str) -> scoring_pb2.ImageScores:
        await self.go.wait()
        return scoring_pb2.ImageScores()

    async def run(self) -> None:
        async for response in self._stream.responses(self._messages()):
            self.answered.append(response.request_id)


def image(name: str) -> Message:
    return Message(image=scoring_pb2.WholeImage(request_id=name, data=b"data"))


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
    chunk = scoring_pb2.ImageChunk(request_id="a", data=b"half")
    stream = Played(Message(chunk=chunk))
    with pytest.raises(ScoringError) as caught:
        await asyncio.wait_for(stream.run(), 10)
    assert caught.value.reason is Reason.UPLOAD_STALLED
    assert stream.answered == ["a"]
