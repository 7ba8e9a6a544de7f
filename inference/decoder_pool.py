"""Runs the decoder in worker processes: off the event loop, and apart from the service.

What a worker's death or an endless loop costs is one image.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import TimeoutError as DecoderTimeout

from pebble import ProcessExpired, ProcessPool

from inference.decoding import DecodedMedia, Preprocessing, decode
from inference.errors import Reason, ScoringError


class DecoderPool:
    """A pool of processes that decode."""

    def __init__(
        self, workers: int, preprocessing: Preprocessing, max_pixels: int, max_seconds: float
    ) -> None:
        """`max_seconds` is the time that one file may take."""
        # A fork would share the locks and threads of gRPC and torch, held or not.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(max_workers=workers, context=context)
        self._workers = workers
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._max_seconds = max_seconds

    async def start(self) -> None:
        """Starts the workers, so that the first images need not wait for them."""
        futures = [self._pool.schedule(time.sleep, (0.1,)) for _ in range(self._workers)]
        await asyncio.gather(*map(asyncio.wrap_future, futures))

    async def decode(self, data: bytes, declared_type: str) -> DecodedMedia:
        """Decodes a file. Raises ScoringError as `decode`, or with a DECODER_… reason."""
        future = self._pool.schedule(
            decode,
            (data, declared_type, self._preprocessing, self._max_pixels),
            timeout=self._max_seconds,
        )
        try:
            # Shielded, because cancelling a running future kills its worker: starting another one
            # costs more than finishing an image that nobody waits for any more.
            return await asyncio.shield(asyncio.wrap_future(future))
        except ProcessExpired as error:
            raise ScoringError(Reason.DECODER_CRASHED, "the decoder died of this file") from error
        except DecoderTimeout as error:
            message = f"decoding took over {self._max_seconds:g} s"
            raise ScoringError(Reason.DECODER_TIMEOUT, message) from error

    def close(self) -> None:
        """Ends the workers, at once."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(timeout=5)
