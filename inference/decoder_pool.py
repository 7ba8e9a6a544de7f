"""Runs the decoder in worker processes: off the event loop, and apart from the service.

What a worker's death or an endless loop costs is one image.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import time
from concurrent.futures import TimeoutError as DecoderTimeout
from concurrent.futures.process import BrokenProcessPool

from pebble import ProcessExpired, ProcessPool

from inference.decoding import DecodedMedia, Preprocessing, decode
from inference.errors import Reason, ScoringError

log = logging.getLogger("inference")


class DecoderPool:
    """A pool of processes that decode."""

    def __init__(
        self, workers: int, preprocessing: Preprocessing, max_pixels: int, max_seconds: float
    ) -> None:
        """`max_seconds` is the time that one file may take."""
        self._workers = workers
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._max_seconds = max_seconds
        self._pool = self._new_pool()

    async def start(self) -> None:
        """Starts the workers, so that the first images need not wait for them."""
        futures = [self._pool.schedule(time.sleep, (0.1,)) for _ in range(self._workers)]
        await asyncio.gather(*map(asyncio.wrap_future, futures))

    async def decode(self, data: bytes, declared_type: str) -> DecodedMedia:
        """Decodes a file. Raises ScoringError as `decode`, or with a DECODER_… reason."""
        try:
            return await self._try(data, declared_type)
        except BrokenProcessPool:
            # pebble gives its whole pool up when a worker dies between two tasks. That is not the
            # fault of this file, as far as anybody knows, so it gets another try.
            log.warning("a decoder process died while it was idle")
        try:
            return await self._try(data, declared_type)
        except BrokenProcessPool as error:
            raise ScoringError(Reason.DECODER_CRASHED, "the decoders died") from error

    async def _try(self, data: bytes, declared_type: str) -> DecodedMedia:
        if not self._pool.active:
            broken, self._pool = self._pool, self._new_pool()
            await asyncio.to_thread(_end, broken)
        future = self._pool.schedule(
            decode,
            (data, declared_type, self._preprocessing, self._max_pixels),
            timeout=self._max_seconds,
        )
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            # Cancelling a running future kills its worker, and starting another one costs more
            # than finishing an image that nobody waits for any more.
            if not future.running():
                future.cancel()  # type: ignore[no-untyped-call]
            raise
        except ProcessExpired as error:
            raise ScoringError(Reason.DECODER_CRASHED, "the decoder died of this file") from error
        except DecoderTimeout as error:
            message = f"decoding took over {self._max_seconds:g} s"
            raise ScoringError(Reason.DECODER_TIMEOUT, message) from error

    def close(self) -> None:
        """Ends the workers, at once."""
        _end(self._pool)

    def _new_pool(self) -> ProcessPool:
        # A fork would share the locks and threads of gRPC and torch, held or not.
        context = multiprocessing.get_context("spawn")
        return ProcessPool(max_workers=self._workers, context=context)


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    with contextlib.suppress(TimeoutError):
        pool.join(timeout=5)
