"""Scores many images, over streams to all replicas of the inference service.

Use: `async with BulkScorer("127.0.0.1:50051", options) as scorer:` and in it
`async for result in scorer.score(images):`, where `images` yields each as a BulkImage.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from imagesafety.bulk_attempts import BulkImage as BulkImage  # others import them from here
from imagesafety.bulk_attempts import BulkResult as BulkResult
from imagesafety.bulk_attempts import K
from imagesafety.bulk_requests import BulkOptions as BulkOptions
from imagesafety.bulk_run import BulkRun, BulkTerms
from imagesafety.channel import TlsFiles
from imagesafety.client import ScoringClient
from imagesafety.closed_at_end import ClosedAtEnd
from imagesafety.scores import ModelDescription
from imagesafety.scoring_error import ScoringError as ScoringError
from imagesafety.scoring_error import ServiceUnavailableError as ServiceUnavailableError

STREAMS = 8  # of 32 images each: two replicas take no more of one client
MAX_BYTES = 128 * 1024 * 1024
SILENCE_SECONDS = 60.0
PATIENCE_SECONDS = 120.0
_DESCRIBE_SECONDS = 10.0
_PAUSE_SECONDS = 0.5


class BulkScorer(ClosedAtEnd):
    """The inference service at any gRPC target, as bulk work uses it.

    An image gets exactly one result. Where the service, the network or a replica failed, it is
    tried again, on another replica if there is one; only what would not help there is the result's
    error, or what did not help several times (`ScoringError.may_pass` tells them apart).
    """

    def __init__(
        self,
        target: str,
        options: BulkOptions,
        tls: TlsFiles | None = None,
        *,
        streams: int = STREAMS,
        max_bytes: int = MAX_BYTES,
        silence_seconds: float = SILENCE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """At most `max_bytes` of images are in memory at once, or a single larger one.

        A stream without an answer for `silence_seconds` is given up; more, where images take that
        long. `patience_seconds` is how long all replicas may be away. Raises OSError for TLS files
        that can't be used.
        """
        self._target, self._options = target, options
        self._client = ScoringClient(target, tls)
        self._terms = BulkTerms(streams, max_bytes, silence_seconds, patience_seconds)
        self._runs: set[BulkRun[Any]] = set()

    async def close(self) -> None:
        """Ends what still runs and closes the connection."""
        for run in list(self._runs):
            await run.close()
        await self._client.close()

    async def describe_model(self, *, timeout: float) -> ModelDescription:  # noqa: ASYNC109
        """Which model the service has, and its limits. Raises ScoringError."""
        return await self._client.describe_model(timeout=timeout)

    async def score(
        self, images: AsyncIterable[BulkImage[K]]
    ) -> AsyncGenerator[BulkResult[K], None]:
        """The result of each image, in the order in which they finish.

        The source is read no faster than the service works. What it raises, is raised when the
        images before have their results; a generator is closed at the end. Raises
        ServiceUnavailableError when no replica answers for too long, and ScoringError when the
        service does not take the options.
        """
        description = await self._described()
        run: BulkRun[K] = BulkRun(self._client, self._options, description.limits, self._terms)
        self._runs.add(run)
        try:
            async with contextlib.aclosing(run.results(images)) as results:
                async for result in results:
                    yield result
        finally:
            self._runs.discard(run)

    async def _described(self) -> ModelDescription:
        """The service's description, as soon as it gives one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._terms.patience_seconds
        while True:
            try:
                seconds = min(_DESCRIBE_SECONDS, self._terms.patience_seconds)
                return await self._client.describe_model(timeout=seconds)
            except ScoringError as error:
                if not error.may_pass:
                    raise
                if loop.time() > until:
                    message = f"no replica at {self._target} answers: {error.message}"
                    raise ServiceUnavailableError(message) from error
            await asyncio.sleep(_PAUSE_SECONDS)
