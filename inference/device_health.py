"""Tells a device that fails from pictures that make it fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import numpy as np

from inference.encoder import Embeddings

_SUSPICIOUS = 3  # failures in a row, after which the device is tried with a picture of our own
_SECONDS = 5.0  # between such tries, while they fail

log = logging.getLogger("inference")


class DeviceHealth:
    """Says whether the device works: tries it when one image after the other has failed.

    So nobody can have a service taken out by pictures that are made to fail.
    """

    def __init__(
        self,
        try_device: Callable[[], Awaitable[Embeddings]],
        announce: Callable[[bool], Awaitable[None]],
    ) -> None:
        """`try_device` encodes a blank picture; `announce` is told when the answer changes."""
        self._try_device = try_device
        self._announce = announce
        self._failures = 0
        self._trying: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """An image was encoded."""
        self._failures = 0

    def failed(self) -> None:
        """The encoder failed on an image."""
        self._failures += 1
        if self._failures >= _SUSPICIOUS and self._trying is None:
            self._trying = asyncio.create_task(self._try_until_it_works())

    async def close(self) -> None:
        """Stops trying."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)

    async def _try_until_it_works(self) -> None:
        works = await self._works()
        if not works:
            log.error("the device fails: not serving until it works again")
            await self._announce(False)
            while not works:
                await asyncio.sleep(_SECONDS)
                works = await self._works()
            log.warning("the device works again")
            await self._announce(True)
        self._failures = 0
        self._trying = None

    async def _works(self) -> bool:
        try:
            return bool(np.isfinite(await self._try_device()).all())
        except Exception:
            return False
