"""Brings a file of the spool to the database."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from gateway.ledger.errors import reason
from gateway.ledger.outcome import LedgerUnavailableError
from gateway.ledger.spool_content import read_spool
from gateway.ledger.store import Refused, Store

MOST_ROWS = 200  # in one commit: short enough for a stopped gateway to stop

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.ESTALE)

T = TypeVar("T")

log = logging.getLogger("gateway")


class InThread(Protocol):
    """Runs what blocks in the database's thread."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """What `work` returns."""


@dataclass(frozen=True)
class Replayed:
    """What came of a file. `damaged` says that lines, or all of it, could not be read."""

    rows: int
    refused: tuple[Refused, ...]
    damaged: bool


async def replay(store: Store, path: Path, in_thread: InThread) -> Replayed:
    """Writes what is in a file, in order. Raises LedgerUnavailableError; then again later."""
    try:
        content = await in_thread(lambda: read_spool(path))
    except FileNotFoundError:
        log.error("%s of the spool is gone", path)
        return Replayed(0, (), damaged=False)
    except OSError as error:
        if error.errno in _PASSING:
            raise LedgerUnavailableError(f"the spool can't be read: {reason(error)}") from error
        log.error("%s of the spool can't be read: %s", path, reason(error))
        return Replayed(0, (), damaged=True)
    if content.damaged:
        log.error("%s of the spool has %d damaged lines", path, content.damaged)
    if content.policies:
        await in_thread(lambda: store.write_policies(content.policies))
    refused: list[Refused] = []
    for start in range(0, len(content.rows), MOST_ROWS):
        batch = content.rows[start : start + MOST_ROWS]
        refused += await in_thread(partial(store.write, batch))
    return Replayed(len(content.rows), tuple(refused), content.damaged > 0)
