"""Tells a device that fails from pictures that make it fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import numpy as np

from inference.encoder import Embeddings
from inference.serving_status import Trouble

_SUSPICIOUS = 3  # failures in a row, after which the device is tried with a picture of our own
_SECONDS = 5.0  # between such tries, while they fail
_LOST = 12  # tries that fail in a row, a minute of them: most errors of CUDA stay with a process

log = logging.getLogger("inference")


class DeviceHealth:
    """Says whether the device works: tries it when one image after the other has failed.

    So nobody can have a service taken out by pictures that are made to fail.
    """

    def __init__(
        self,
        try_device: Callable[[], Awaitable[Embeddings]],
        announce: Callable[[Trouble, bool], Awaitable[None]],
    ) -> None:
        """`try_device` encodes a blank picture; `announce` is told whether a trouble holds."""
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
        if not await self._works():
            log.error("the device fails: not serving until it works again")
            await self._announce(Trouble.DEVICE_FAILS, True)
            tries = 1
            while True:
                await asyncio.sleep(_SECONDS)
                if await self._works():
                    break
                tries += 1
                if tries == _LOST:
                    log.error("the device still fails: this process should be started anew")
                    await self._announce(Trouble.DEVICE_LOST, True)
            log.warning("the device works again")
            if tries >= _LOST:
                await self._announce(Trouble.DEVICE_LOST, False)
            await self._announce(Trouble.DEVICE_FAILS, False)
        self._failures = 0
        self._trying = None

    async def _works(self) -> bool:
        try:
            return bool(np.isfinite(await self._try_device()).all())
        except Exception:
            return False
