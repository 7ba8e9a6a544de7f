"""Warning of a gateway that has never been called, with the first cause to look at.

pict-rs refuses uploads while it cannot reach its validator, and none of that is seen here.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from gateway.ledger.ledger import AnyLedger, LedgerUnavailableError, NoLedger
from gateway.ledger.retention import has_decisions

PATIENCE_SECONDS: Final = 600.0

NEVER_CALLED: Final = (
    "If files are uploaded to pict-rs, look first at its setting "
    "PICTRS__MEDIA__EXTERNAL_VALIDATION: it must have the gateway's address and not its name, as "
    "in http://10.140.51.2:14051/api/v1/scan/IPADDR. Since 0.5.21 pict-rs drops private addresses "
    "from what a name resolves to; each upload then fails with status 500 and http-client-error. "
    "To check, fetch http://ADDRESS:14051/livez from where pict-rs runs, then upload a picture."
)

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Refused:
    """Calls that were refused before their upload was looked at: how many, and the last of them."""

    count: int
    status: int
    message: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class NoUploads:
    """No upload has ever come; `refused` calls may have."""

    refused: Refused | None


class FirstCall:
    """The first upload: noted when it comes, with a warning where none does.

    An upload of an earlier run counts, if it is on record.
    """

    def __init__(self, ledger: AnyLedger, *, patience: float = PATIENCE_SECONDS) -> None:
        """`patience` is in seconds, from the start of `run` to the warning."""
        self._ledger = ledger
        self._patience = patience
        self._came = False
        self._refused: Refused | None = None

    def note_upload(self) -> None:
        """Take note of an upload by a client that may ask."""
        self._came = True

    def note_refusal(self, status: int, message: str, user_agent: str) -> None:
        """Take note of a call that was refused before its upload was looked at."""
        count = self._refused.count + 1 if self._refused is not None else 1
        self._refused = Refused(count, status, message, user_agent)

    async def missing(self) -> NoUploads | None:
        """The state for pages, None if an upload has come. Raises LedgerUnavailableError."""
        if not self._came and not isinstance(self._ledger, NoLedger):
            self._came = await self._ledger.transaction(has_decisions)
        return NoUploads(self._refused) if not self._came else None

    async def run(self) -> None:
        """Log one warning if no call comes in time; return when there is none to be given."""
        while True:
            await asyncio.sleep(self._patience)
            if self._refused is not None:  # in the log, each of them
                return
            try:
                missing = await self.missing()
            except LedgerUnavailableError:
                continue  # uploads may be on record
            except Exception:
                log.exception("the ledger could not be asked for uploads")
                continue
            if missing is not None:
                log.warning("no upload has ever come to this gateway. %s", NEVER_CALLED)
            return
