"""What the service asks of a model, and the threads that run it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from inference.backends.tower import Embeddings as Embeddings  # others import it from here
from inference.backends.tower import Picture
from inference.decoder.media import Preprocessing
from inference.waiting import DeviceClock

ArgumentT = TypeVar("ArgumentT")
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class ModelDescription:
    """A loaded model; see ModelIdentity in scoring.proto."""

    name: str
    weights_digest: str
    backend: str
    embedding_width: int
    preprocessing: Preprocessing
    speed_key: str = ""
    """A digest of all that the time of a batch depends on; empty: that is not known."""


class Encoder(Protocol):
    """A model that embeds pictures and texts in one space."""

    @property
    def description(self) -> ModelDescription:
        """What this is."""

    @property
    def concurrency(self) -> int:
        """How many calls of `encode_images` may overlap, from different threads."""

    def encode_images(self, pictures: Sequence[Picture]) -> Embeddings:
        """Embeds pictures of height × width × 3 RGB bytes, of the size of `preprocessing`.

        What is not finite comes back as it is.
        """

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds texts; what is over the model's context length is cut off."""

    def close(self) -> None:
        """Gives back what the model holds; it is not used after that."""


class EncoderThread:
    """Runs an encoder off the event loop, in as many threads as its calls may overlap."""

    def __init__(
        self,
        encoder: Encoder,
        clock: DeviceClock | None = None,
        on_busy: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`clock` is told of each call of the device, in the thread that makes it.

        `on_busy` is told when the first of several calls begins and when the last one ends.
        """
        self._encoder = encoder
        self._clock = clock or DeviceClock()
        self._executor = ThreadPoolExecutor(encoder.concurrency, thread_name_prefix="encoder")
        self._on_busy = on_busy
        self._calls = 0  # that were made, and are not answered

    async def encode_images(self, pictures: Sequence[bytes]) -> Embeddings:
        """As Encoder.encode_images."""
        return await self._call(self._encoder.encode_images, pictures)

    async def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """As Encoder.encode_texts."""
        return await self._call(self._encoder.encode_texts, texts)

    def running_for(self) -> float:
        """For how many seconds the oldest call runs; 0 if none does."""
        return self._clock.longest(time.monotonic())

    async def close(self, seconds: float = math.inf) -> bool:
        """Ends the threads after the calls that they run; False if those take longer than that."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + seconds
        while self._clock.is_busy:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def _call(
        self, encode: Callable[[ArgumentT], Embeddings], argument: ArgumentT
    ) -> Embeddings:
        def run() -> Embeddings:
            call = self._clock.begin(time.monotonic())
            try:
                return encode(argument)
            finally:
                self._clock.end(call, time.monotonic())

        if self._calls == 0:
            self._on_busy(True)
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, run)
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._on_busy(False)
