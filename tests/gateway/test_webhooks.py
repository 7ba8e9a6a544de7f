"""Webhooks: what they say, how they are signed, and that they arrive."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.ledger.ledger import Ledger, LedgerUnavailableError, NoLedger
from gateway.ledger.record import DecisionRecord
from gateway.ledger.tables import decisions, deliveries
from gateway.metrics import Metrics
from gateway.webhook_payload import event_of, payload_of
from gateway.webhook_signature import signed_headers, signing_key
from gateway.webhooks import LEASE_SECONDS, MOST_ATTEMPTS, WebhookSender, pause_after
from imagesafety.scores import View
from tests.gateway.postgres import Postgres, postgres  # noqa: F401
from tests.gateway.records import record
from tests.serving import serving

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
START = float(int(time.time()))  # the ledger forgets what is long ago


def test_rejects_and_flags_are_events() -> None:
    assert event_of(record(decision="reject")) == "decision.rejected"
    assert event_of(record(flagged=True)) == "decision.flagged"
    assert event_of(record()) is None
    assert event_of(record(unscanned=True, cause="overload")) is None


def test_the_payload_says_why_and_where() -> None:
    views = (
        View(0, 0.0, (0, 0, 10, 10), (0.1,)),
        View(7, 0.7, (5, 6, 10, 20), (0.3,)),
    )
    rejected = record(
        id="f" * 32,
        decision="reject",
        rule="<b>\ud800",
        sha256=b"\xab" * 32,
        deciding_view=1,
        views=views,
        rescan_of="e" * 32,
    )
    body = json.loads(payload_of(rejected))
    assert body["type"] == "decision.rejected"
    assert body["timestamp"] == body["data"]["time"] == "2023-11-14T22:13:20.123456Z"
    data = body["data"]
    assert data["id"] == "f" * 32
    assert data["rescan_of"] == "e" * 32
    assert data["sha256"] == "ab" * 32
    assert data["rule"] == "<b>\ud800"
    assert data["view"] == {
        "frame": 7,
        "seconds": 0.7,
        "region": {"left": 5, "top": 6, "width": 10, "height": 20},
    }
    assert len(payload_of(rejected)) < 2000


def test_the_payload_of_a_file_without_scores() -> None:
    data = json.loads(payload_of(record(decision="reject", cause="overload", sha256=None)))["data"]
    assert (data["sha256"], data["view"], data["cause"]) == (None, None, "overload")


def test_the_signature_is_the_one_of_the_specifications_test_vector() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_short",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
        "whsec_é" + "A" * 40,
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_a_secret_that_is_none_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_ and the base64 of 24 to 64") as caught:
        signing_key(secret)
    assert len(secret) < 8 or secret not in str(caught.value)


def test_pauses_grow_from_seconds_to_hours_and_last_for_three_days() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, MOST_ATTEMPTS)]
    assert pauses[0] == 5
    assert pauses == sorted(pauses)
    assert max(pauses) == 12 * 3600
    assert 70 < sum(pauses) / 3600 < 76


class Receiver:
    """The other system. Answers with `answers` in turn, then 204."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Response] = []
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.arrived = asyncio.Event()

    async def hook(self, request: Request) -> Response:
        self.received.append((dict(request.headers), await request.body()))
        self.arrived.set()
        return self.answers.pop(0) if self.answers else Response(status_code=204)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/hook", receiver.hook, methods=["POST"])])
    async with serving(app) as url:
        receiver.url = f"{url}/hook?a=b"
        yield receiver


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextlib.asynccontextmanager
async def opened(folder: Path, url: str = "") -> AsyncIterator[Ledger]:
    url = url or f"sqlite:///{folder / 'ledger.sqlite'}"
    ledger = Ledger(url, folder / "spool", Metrics(), retention_days=90, webhooks=True)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with opened(tmp_path) as ledger:
        yield ledger


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def sender(
    ledger: Ledger, receiver: Receiver, clock: Clock, metrics: Metrics
) -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(ledger, receiver.url, SECRET, metrics, clock=clock)
    yield sender
    await sender.close()


async def add(ledger: Ledger, *records: DecisionRecord) -> None:
    for added in records:
        assert await ledger.record(added, until=time.monotonic() + 30) != "nowhere"
    statement = select(decisions.c.id)
    async with asyncio.timeout(30):  # what had to go through the spool comes a little later
        while not {added.id for added in records} <= set(
            await ledger.transaction(lambda c: list(c.execute(statement).scalars()))
        ):
            pass


def rejected(number: int = 0, **changes: Any) -> DecisionRecord:
    return record(id=f"{number:032x}", at=round(START * 1e6), decision="reject", **changes)


async def rows(ledger: Ledger) -> list[Any]:
    statement = select(deliveries).order_by(deliveries.c.decision_id)
    return await ledger.transaction(lambda connection: list(connection.execute(statement)))


def counted(registry: CollectorRegistry) -> dict[str, float]:
    outcomes = ("delivered", "failed", "given_up")
    name = "imagesafety_webhook_attempts_total"
    values = {o: registry.get_sample_value(name, {"outcome": o}) for o in outcomes}
    return {outcome: value for outcome, value in values.items() if value}


async def test_rejects_and_flags_arrive_signed_and_once(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver, metrics: Metrics
) -> None:
    flagged = record(id="2" * 32, at=round(START * 1e6), flagged=True, rule="r")
    await add(ledger, rejected(1), record(id="3" * 32, at=round(START * 1e6)), flagged)
    assert await sender.send_due() == 2
    assert await sender.send_due() == 0
    assert sorted(receiver.ids) == [rejected(1).id, flagged.id]
    for headers, body in receiver.received:
        assert headers["content-type"] == "application/json"
        assert headers["webhook-timestamp"] == str(int(START))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.digest(b"k" * 32, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{signature}"
        assert json.loads(body)["data"]["id"] == headers["webhook-id"]
    assert [(row.due, row.last_error, row.attempts) for row in await rows(ledger)] == [
        (None, "", 1),
        (None, "", 1),
    ]
    assert counted(metrics.registry) == {"delivered": 2}


async def test_what_fails_is_tried_again_later_with_the_same_id(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver, clock: Clock, metrics: Metrics
) -> None:
    receiver.answers = [Response(status_code=500), RedirectResponse(receiver.url)]
    await add(ledger, rejected())
    assert await sender.send_due() == 1
    [row] = await rows(ledger)
    assert row.last_error == "the receiver answers 500 Internal Server Error"
    assert 4 <= row.due / 1e6 - START <= 6
    assert await sender.send_due() == 0
    clock.now += 6
    assert await sender.send_due() == 1
    [row] = await rows(ledger)
    assert row.last_error.startswith("the receiver answers 307")
    clock.now += 18
    assert await sender.send_due() == 1
    [row] = await rows(ledger)
    assert (row.due, row.attempts, row.delivered) == (None, 3, round(clock.now * 1e6))
    assert len(set(receiver.ids)) == 1
    assert len(receiver.received) == 3  # no redirect was followed
    assert receiver.received[-1][0]["webhook-timestamp"] == str(int(clock.now))
    assert counted(metrics.registry) == {"failed": 2, "delivered": 1}


async def test_a_receiver_that_is_down_is_tried_for_three_days(
    ledger: Ledger, clock: Clock, metrics: Metrics
) -> None:
    async with serving(Starlette()) as url:
        pass
    sender = WebhookSender(ledger, url, SECRET, metrics, clock=clock)
    await add(ledger, rejected())
    while (await rows(ledger))[0].due is not None:
        clock.now = max(clock.now, (await rows(ledger))[0].due / 1e6)
        assert await sender.send_due() == 1
    await sender.close()
    [row] = await rows(ledger)
    assert row.attempts == MOST_ATTEMPTS
    assert row.delivered is None
    assert "can't be reached" in row.last_error
    assert 2 < (clock.now - START) / 86400 < 4
    assert counted(metrics.registry) == {"failed": MOST_ATTEMPTS - 1, "given_up": 1}


async def test_a_receiver_that_is_gone_is_left_alone(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver
) -> None:
    receiver.answers = [Response(status_code=410)]
    await add(ledger, rejected())
    await sender.send_due()
    [row] = await rows(ledger)
    assert (row.due, row.delivered) == (None, None)
    assert "410" in row.last_error


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("600", 600), ("9" * 30, 86400), ("-1", 5), ("\xb2", 5), ("Fri, 31 Dec 1999", 5)],
)
async def test_a_receiver_may_ask_for_a_pause(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver, asked: str, seconds: int
) -> None:
    receiver.answers = [Response(status_code=429, headers={"retry-after": asked})]
    await add(ledger, rejected())
    await sender.send_due()
    [row] = await rows(ledger)
    assert 0.8 * seconds <= row.due / 1e6 - START <= 1.2 * seconds


async def test_an_endless_answer_is_not_read(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)
            await asyncio.sleep(0)  # lets the server notice that nobody reads

    receiver.answers = [StreamingResponse(endless())]
    await add(ledger, rejected())
    await sender.send_due()
    assert (await rows(ledger))[0].delivered is not None


async def test_a_webhook_whose_sender_died_is_sent_again(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver, clock: Clock
) -> None:
    held = asyncio.Event()

    async def never(request: Request) -> Response:
        receiver.arrived.set()
        await held.wait()
        return Response()

    async with serving(Starlette(routes=[Route("/", never, methods=["POST"])])) as url:
        dying = WebhookSender(ledger, url, SECRET, Metrics(), clock=clock)
        await add(ledger, rejected())
        sending = asyncio.create_task(dying.send_due())
        await receiver.arrived.wait()
        assert await sender.send_due() == 0  # it is claimed
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await dying.close()
        held.set()
    clock.now += LEASE_SECONDS + 1
    assert await sender.send_due() == 1
    assert (await rows(ledger))[0].delivered is not None


async def test_a_clock_that_was_set_back_delays_nothing_for_long(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver, clock: Clock
) -> None:
    await add(ledger, rejected())
    clock.now -= 365 * 86400
    assert await sender.send_due() == 1
    assert len(receiver.received) == 1


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_gateways_on_one_database_send_each_webhook_once(
    database: str,
    tmp_path: Path,
    receiver: Receiver,
    clock: Clock,
    request: pytest.FixtureRequest,
) -> None:
    url = ""
    if database == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
    count = 60
    async with opened(tmp_path, url) as ledger, contextlib.AsyncExitStack() as stack:
        await add(ledger, *(rejected(number) for number in range(count)))
        senders = []
        for _ in range(3):
            another = await stack.enter_async_context(opened(tmp_path, url)) if url else ledger
            senders.append(WebhookSender(another, receiver.url, SECRET, Metrics(), clock=clock))

        async def send_all(sender: WebhookSender) -> None:
            while any(row.due is not None for row in await rows(ledger)):
                await sender.send_due()
            await sender.close()

        await asyncio.gather(*(send_all(sender) for sender in senders))
        assert sorted(receiver.ids) == [rejected(number).id for number in range(count)]


async def test_it_runs_until_it_is_cancelled_and_waits_for_the_database(
    ledger: Ledger, sender: WebhookSender, receiver: Receiver
) -> None:
    await add(ledger, rejected())
    running = asyncio.create_task(sender.run())
    await asyncio.wait_for(receiver.arrived.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    none = WebhookSender(NoLedger(), receiver.url, SECRET, Metrics())
    with pytest.raises(LedgerUnavailableError):
        await none.send_due()
    await none.close()
