"""Tells another system of rejects and flags: posts what is due in `deliveries`, until it arrives.

At least once: a gateway that dies between sending and noting it sends again, with the same id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import httpx
from sqlalchemy import Connection, or_, select, update

from gateway.ledger.ledger import AnyLedger, LedgerUnavailableError
from gateway.ledger.tables import deliveries
from gateway.metrics import Metrics
from gateway.webhook_signature import signed_headers, signing_key

MOST_AT_ONCE: Final = 8
TIMEOUT_SECONDS: Final = 15.0
LEASE_SECONDS: Final = 60.0  # for how long other gateways leave a claimed row alone
POLL_SECONDS: Final = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 12 * 3600.0  # seconds
MOST_ATTEMPTS: Final = 15  # over three days
LONGEST_RETRY_AFTER: Final = 24 * 3600.0

log = logging.getLogger("gateway")


def pause_after(attempts: int) -> float:
    """Seconds until the next try after this many failed ones, without jitter."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 3 ** min(attempts - 1, 20)))


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A row that is `due`, or claimed until then, in microseconds since 1970."""

    id: str
    body: bytes
    attempts: int
    due: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a try. `retry_after` is what the receiver asked for, in seconds."""

    error: str = ""
    gone: bool = False
    retry_after: float = 0.0


class WebhookSender:
    """Sends the deliveries of a ledger; several gateways may share one."""

    def __init__(
        self,
        ledger: AnyLedger,
        url: str,
        secret: str,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since 1970. Raises ValueError for a secret that is none."""
        self._ledger = ledger
        self._url = url
        self._key = signing_key(secret)
        self._metrics = metrics
        self._clock = clock
        self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False)

    async def run(self) -> None:
        """Sends what is due, until it is cancelled."""
        while True:
            sent = 0
            try:
                sent = await self.send_due()
            except LedgerUnavailableError as error:
                log.debug("webhooks wait: %s", error)
            except Exception:
                log.exception("sending webhooks failed")
            if sent == 0:
                await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def send_due(self) -> int:
        """Tries to send some of what is due; how many. Raises LedgerUnavailableError."""
        now = self._microseconds()
        due = await self._ledger.transaction(lambda connection: _due(connection, now))
        if not due:
            return 0
        # Another transaction, that begins with a write: one that began with a read could not go
        # on to write in SQLite if another one did so meanwhile.
        lease = now + round(LEASE_SECONDS * 1e6)
        claimed = await self._ledger.transaction(lambda connection: _claim(connection, due, lease))
        await asyncio.gather(*(self._send(delivery) for delivery in claimed))
        return len(claimed)

    async def _send(self, delivery: _Delivery) -> None:
        outcome = await self._post(delivery)
        now = self._microseconds()
        attempts = delivery.attempts + 1
        values: dict[str, object] = {
            "attempts": attempts,
            "last_error": outcome.error,
            "due": None,
        }
        if not outcome.error:
            result = "delivered"
            values["delivered"] = now
        elif outcome.gone or attempts >= MOST_ATTEMPTS:
            result = "given_up"
            log.error("webhook %s given up: %s", delivery.id, outcome.error)
        else:
            result = "failed"
            pause = max(pause_after(attempts), outcome.retry_after) * random.uniform(0.8, 1.2)  # noqa: S311
            values["due"] = now + round(pause * 1e6)
            log.warning("webhook %s: %s; again in %d s", delivery.id, outcome.error, pause)
        self._metrics.count_delivery(result)
        statement = (
            update(deliveries)
            .where(deliveries.c.decision_id == delivery.id, deliveries.c.due == delivery.due)
            .values(values)
        )
        try:
            await self._ledger.transaction(lambda connection: connection.execute(statement))
        except LedgerUnavailableError as error:
            log.warning("webhook %s will be sent again: %s", delivery.id, error)

    async def _post(self, delivery: _Delivery) -> _Outcome:
        headers = signed_headers(self._key, delivery.id, int(self._clock()), delivery.body)
        headers["content-type"] = "application/json"
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                # Streamed, because nobody needs the body, however large it is.
                self._client.stream(
                    "POST", self._url, content=delivery.body, headers=headers
                ) as answer,
            ):
                if answer.is_success:
                    return _Outcome()
                error = f"the receiver answers {answer.status_code} {answer.reason_phrase}".strip()
                return _Outcome(error, answer.status_code == 410, _retry_after(answer))
        except (TimeoutError, httpx.TimeoutException):
            return _Outcome(f"no answer within {TIMEOUT_SECONDS:g} seconds")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return _Outcome(f"the receiver can't be reached: {error or type(error).__name__}")

    def _microseconds(self) -> int:
        return round(self._clock() * 1e6)


def _due(connection: Connection, now: int) -> list[_Delivery]:
    columns = deliveries.c
    # No pause is as long as two days: what is due later was written before the clock was set back.
    beyond = now + round(2 * LONGEST_RETRY_AFTER * 1e6)
    statement = (
        select(columns.decision_id, columns.payload, columns.attempts, columns.due)
        .where(or_(columns.due <= now, columns.due > beyond))
        .order_by(columns.due)
        .limit(MOST_AT_ONCE)
    )
    return [
        _Delivery(row.decision_id, row.payload.encode(), row.attempts, row.due)
        for row in connection.execute(statement)
    ]


def _claim(connection: Connection, due: list[_Delivery], lease: int) -> list[_Delivery]:
    """Those that no other gateway was faster to claim, which are now claimed until `lease`."""
    claimed = []
    for delivery in due:
        statement = (
            update(deliveries)
            .where(deliveries.c.decision_id == delivery.id, deliveries.c.due == delivery.due)
            .values(due=lease)
        )
        if connection.execute(statement).rowcount == 1:
            claimed.append(replace(delivery, due=lease))
    return claimed


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the receiver asks to wait, if it says so in seconds."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() and text.isascii() else 0.0
