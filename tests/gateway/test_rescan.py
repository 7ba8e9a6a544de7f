"""Files that were accepted unscanned are looked at when there is room again."""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy import select

from gateway.decision import Decider
from gateway.decision_record import Facts, record_of
from gateway.evidence import Cause, Evidence, Scored, why_unscored
from gateway.ledger.ledger import Ledger
from gateway.ledger.record import DecisionRecord, Rescan, Timings
from gateway.ledger.tables import decisions, deliveries
from gateway.metrics import Metrics
from gateway.overrides.matching import OverrideSet
from gateway.rescan import MOST_TRIES, SETTLE_SECONDS, NoRoomError, Rescanner
from gateway.rescan_queue import rescan_id
from imagesafety.client import ConceptSet, ScoringClient, ScoringError
from imagesafety.pict_rs import PictRs, PictRsError
from imagesafety.policy import Mode
from imagesafety.policy_file import parse_policy
from imagesafety.v1 import scoring_pb2
from tests.e2e.scripted_inference import Context, scores, scripted
from tests.fake_pict_rs import API_KEY, FakePictRs, HashFormat, fake_pict_rs
from tests.gateway.postgres import Postgres, postgres  # noqa: F401
from tests.gateway.records import record

POLICY = parse_policy(
    """
    model = "demo"
    concepts.a = ["a"]
    groups.g.thresholds = { a = 0.5 }
    [[rules]]
    name = "r"
    all = ["g"]
    """
)
NOW = time.time()  # the ledger forgets what is long ago
DEFAULTS = {cause: cause is not Cause.UNDECODABLE for cause in Cause}


@dataclass
class Inference:
    """Scores a file by its bytes: over the threshold if "bad" is in them."""

    full: bool = False
    fails: grpc.StatusCode | None = None
    scored: list[bytes] = field(default_factory=list)
    priorities: set[int] = field(default_factory=set)

    async def score(
        self, messages: AsyncIterator[scoring_pb2.ScoreImageRequest], context: Context
    ) -> scoring_pb2.ScoreImageResponse:
        data = b""
        async for message in messages:
            if message.HasField("header"):
                self.priorities.add(message.header.options.priority)
            data += message.chunk
        if self.full:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if self.fails is not None:
            await context.abort(self.fails, "failed")
        if b"broken" in data:
            await _abort(context, "UNDECODABLE")
        if b"huge" in data:
            await _abort(context, "TOO_MANY_PIXELS")
        self.scored.append(data)
        return scores(0.9 if b"bad" in data else 0.1)


async def _abort(context: Context, reason: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="imagesafety"))
    code = grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, reason, trailing_metadata=trailer)


class World:
    """A ledger, pict-rs and inference, and rescanners between them."""

    def __init__(
        self,
        ledger: Ledger,
        pict_rs: FakePictRs,
        client: ScoringClient,
        inference: Inference,
        api: PictRs,
    ) -> None:
        self.ledger, self.pict_rs, self.inference = ledger, pict_rs, inference
        self.metrics = Metrics()
        self.now = NOW
        self.answers = DEFAULTS
        self.looks_fail = False
        self._client = client
        self._api = api

    def rescanner(self, on_late_reject: Literal["report", "purge"] = "report") -> Rescanner:
        return Rescanner(
            self.ledger,
            self._api,
            self.look,
            self.ready,
            self.metrics,
            on_late_reject=on_late_reject,
            clock=lambda: self.now,
        )

    async def ready(self) -> bool:
        return not self.inference.full

    async def look(self, data: bytes, unscanned: DecisionRecord) -> DecisionRecord:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        if self.looks_fail:
            raise RuntimeError("a mistake of ours")
        evidence: Evidence
        try:
            found = await self._client.score_image(
                chunks(), concepts=ConceptSet(POLICY.concepts), timeout=30, bulk=True
            )
            evidence = Scored(found)
        except ScoringError as error:
            evidence = why_unscored(error)
        decision = Decider(self.answers).decide(
            POLICY,
            evidence,
            sha256=unscanned.sha256,
            overrides=OverrideSet(()),
            mode=unscanned.client_mode,
        )
        facts = Facts(
            id=secrets.token_hex(16),
            at=round(self.now * 1e6),
            client=unscanned.client,
            client_mode=unscanned.client_mode,
            sha256=unscanned.sha256,
            size=len(data),
            media_type=unscanned.media_type,
        )
        timings = Timings(total=1.0)
        return record_of(decision, evidence, facts, POLICY, timings, rescan_of=unscanned.id)

    async def upload(self, data: bytes, age: float = 3600, **changes: Any) -> DecisionRecord:
        """A file that was accepted unscanned; it is not in pict-rs by that."""
        values: dict[str, Any] = {
            "id": secrets.token_hex(16),
            "at": round((self.now - age) * 1e6),
            "sha256": hashlib.sha256(data).digest(),
            "size": len(data),
            "cause": "overload",
            "unscanned": True,
            "rescan": Rescan.PENDING,
        }
        unscanned = record(**(values | changes))
        assert await self.ledger.record(unscanned, until=time.monotonic() + 30) != "nowhere"
        statement = select(decisions.c.id).where(decisions.c.id == unscanned.id)
        async with asyncio.timeout(30):  # what had to go through the spool comes a little later
            while await self.ledger.transaction(lambda c: c.execute(statement).first()) is None:
                pass
        return unscanned

    async def state(self, unscanned: DecisionRecord) -> str:
        statement = select(decisions.c.rescan).where(decisions.c.id == unscanned.id)
        return await self.ledger.transaction(lambda c: str(c.execute(statement).scalar_one()))

    async def rescans(self) -> list[Any]:
        statement = select(decisions).where(decisions.c.rescan_of.is_not(None))
        return await self.ledger.transaction(lambda c: list(c.execute(statement)))

    async def webhooks(self) -> list[str]:
        statement = select(deliveries.c.decision_id)
        return await self.ledger.transaction(lambda c: list(c.execute(statement).scalars()))

    async def settled(self, outcome: str) -> None:
        while outcome not in self.counted:
            await self.rescans()

    @property
    def counted(self) -> dict[str, float]:
        name = "imagesafety_rescans_total"
        values = {
            outcome: self.metrics.registry.get_sample_value(name, {"outcome": outcome})
            for outcome in ("accept", "reject", "gone", "failed")
        }
        return {outcome: value for outcome, value in values.items() if value}


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncIterator[World]:
    ledger = Ledger(database, tmp_path / "spool", Metrics(), retention_days=90, webhooks=True)
    await ledger.start()
    inference = Inference()
    async with (
        fake_pict_rs() as pict_rs,
        scripted(inference.score) as (target, _),
        ScoringClient(target) as client,
        PictRs(pict_rs.url, API_KEY) as api,
    ):
        yield World(ledger, pict_rs, client, inference, api)
    await ledger.close()


async def test_a_harmless_file_is_recorded_as_scanned(world: World) -> None:
    world.pict_rs.store(b"good")
    unscanned = await world.upload(b"good", client="lemmy")
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == "scanned"
    [row] = await world.rescans()
    assert (row.rescan_of, row.decision, row.cause) == (unscanned.id, "accept", "policy")
    assert (row.sha256, row.client, row.rescan) == (unscanned.sha256, "lemmy", None)
    assert row.views is not None
    assert world.pict_rs.purged == []
    assert world.inference.priorities == {scoring_pb2.PRIORITY_BULK}
    assert world.counted == {"accept": 1}
    await world.rescanner("purge").work_off()
    assert world.inference.scored == [b"good"]


@pytest.mark.parametrize("on_late_reject", ["report", "purge"])
async def test_a_late_reject_is_reported_or_purged(
    world: World, on_late_reject: Literal["report", "purge"], caplog: pytest.LogCaptureFixture
) -> None:
    world.pict_rs.store(b"bad", "i-png", "one.png", "two.png")
    world.pict_rs.store(b"other")
    unscanned = await world.upload(b"bad")
    with caplog.at_level(logging.WARNING):
        await world.rescanner(on_late_reject).work_off()
    assert await world.state(unscanned) == "scanned"
    [row] = await world.rescans()
    assert (row.decision, row.rule) == ("reject", "r")
    assert await world.webhooks() == [row.id]
    assert world.pict_rs.purged == (["one.png"] if on_late_reject == "purge" else [])
    assert len(world.pict_rs.files) == (1 if on_late_reject == "purge" else 2)
    assert unscanned.id in caplog.text
    assert "one.png" in caplog.text
    assert world.counted == {"reject": 1}


async def test_a_client_in_shadow_mode_loses_nothing(world: World) -> None:
    world.pict_rs.store(b"bad")
    unscanned = await world.upload(b"bad", client_mode=Mode.SHADOW)
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == "scanned"
    [row] = await world.rescans()
    assert (row.decision, row.shadow) == ("accept", "reject")
    assert world.pict_rs.purged == []


async def test_what_was_recorded_before_a_crash_is_only_finished(world: World) -> None:
    world.pict_rs.store(b"bad", "i-png", "a.png")
    unscanned = await world.upload(b"bad")
    found = await world.look(b"bad", unscanned)
    await world.upload(
        b"bad",
        id=rescan_id(unscanned.id),
        rescan_of=unscanned.id,
        rescan=None,
        decision=found.decision,
        unscanned=False,
    )
    world.inference.scored.clear()
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == "scanned"
    assert world.pict_rs.purged == ["a.png"]
    assert world.inference.scored == []
    assert len(await world.rescans()) == 1


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
async def test_gateways_on_one_database_record_each_file_once(world: World) -> None:
    files = [b"%s %d" % (b"bad" if n % 2 else b"good", n) for n in range(70)]
    for data in files:
        world.pict_rs.store(data)
        await world.upload(data)
    await asyncio.gather(*(world.rescanner("purge").work_off() for _ in range(3)))
    rows = await world.rescans()
    assert len({row.rescan_of for row in rows}) == len(rows) == len(files)
    assert world.counted == {"accept": 35, "reject": 35}
    assert len(world.pict_rs.purged) == 35
    assert set(world.inference.scored) == set(files)
    assert sorted(await world.webhooks()) == sorted(
        row.id for row in rows if row.decision == "reject"
    )


async def test_a_file_that_pict_rs_does_not_have_is_gone_but_not_at_once(world: World) -> None:
    world.pict_rs.store(b"other")
    unscanned = await world.upload(b"wanted", age=10)
    rescanner = world.rescanner()
    await rescanner.work_off()
    assert await world.state(unscanned) == "pending"
    world.now += SETTLE_SECONDS
    await rescanner.work_off()
    assert await world.state(unscanned) == "gone"
    assert world.counted == {"gone": 1}
    assert await world.rescans() == []


async def test_a_file_is_found_where_hashes_are_of_a_format_that_is_not_known(
    world: World,
) -> None:
    world.pict_rs.hash_format = HashFormat(lambda file: f"v2:{file.sha256[:30]}")
    uploaded = datetime.fromtimestamp(world.now - 3600, UTC)
    for data in (b"some", b"good", b"more"):
        world.pict_rs.store(data).stored_at = uploaded
    unscanned = await world.upload(b"good")
    missing = await world.upload(b"lost")
    await world.rescanner().work_off()
    assert await world.state(unscanned) == "scanned"
    assert await world.state(missing) == "pending"  # nobody knows that it is gone
    assert world.counted == {"accept": 1}


async def test_a_file_that_pict_rs_fails_to_list_delays_no_others(world: World) -> None:
    world.pict_rs.store(b"lost").is_lost = True
    world.pict_rs.store(b"good")
    unscanned = await world.upload(b"good")
    lost = await world.upload(b"lost")
    await world.rescanner().work_off()
    assert [await world.state(row) for row in (unscanned, lost)] == ["scanned", "pending"]


async def test_what_is_pending_stays_so_while_inference_is_full(world: World) -> None:
    world.pict_rs.store(b"good")
    unscanned = await world.upload(b"good")
    world.inference.full = True
    rescanner = world.rescanner()
    with pytest.raises(NoRoomError, match="not ready"):
        await rescanner.work_off()
    assert world.pict_rs.requests == []

    async def ready() -> bool:
        return True

    hopeful = world.rescanner()
    hopeful._ready = ready
    with pytest.raises(NoRoomError, match="full"):
        await hopeful.work_off()
    assert await world.state(unscanned) == "pending"
    assert await world.rescans() == []
    world.inference.full = False
    await hopeful.work_off()
    assert await world.state(unscanned) == "scanned"


async def test_a_refusal_for_want_of_room_purges_nothing(world: World) -> None:
    world.answers = dict.fromkeys(Cause, False)
    world.pict_rs.store(b"good")
    unscanned = await world.upload(b"good")
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
        world.inference.fails = code
        rescanner = world.rescanner("purge")
        if code is grpc.StatusCode.UNAVAILABLE:
            with pytest.raises(NoRoomError):
                await rescanner.work_off()
        else:
            await rescanner.work_off()
        assert await world.state(unscanned) == "pending"
    assert world.pict_rs.purged == []
    assert await world.rescans() == []


async def test_pict_rs_that_is_down_delays_what_is_pending(world: World) -> None:
    world.pict_rs.store(b"good")
    unscanned = await world.upload(b"good")
    world.pict_rs.fails_with = 500
    rescanner = world.rescanner()
    with pytest.raises(PictRsError):
        await rescanner.work_off()
    assert await world.state(unscanned) == "pending"
    world.pict_rs.fails_with = 0
    await rescanner.work_off()
    assert await world.state(unscanned) == "scanned"


async def test_other_bytes_than_were_uploaded_are_not_scored(world: World) -> None:
    world.pict_rs.store(b"good").damaged = b"baad"
    unscanned = await world.upload(b"good")
    await world.rescanner("purge").work_off()
    assert world.inference.scored == []
    assert await world.state(unscanned) == "pending"


@pytest.mark.parametrize("accepts", [False, True])
async def test_an_undecodable_file_gets_the_configured_answer(world: World, accepts: bool) -> None:
    world.answers = DEFAULTS | {Cause.UNDECODABLE: accepts}
    world.pict_rs.store(b"broken", "i-png", "a.png")
    unscanned = await world.upload(b"broken")
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == ("failed" if accepts else "scanned")
    [row] = await world.rescans()
    assert (row.cause, row.decision) == ("undecodable", "accept" if accepts else "reject")
    assert world.pict_rs.purged == ([] if accepts else ["a.png"])
    assert world.counted == {"failed" if accepts else "reject": 1}


async def test_a_file_over_the_limits_of_inference_has_failed(world: World) -> None:
    world.pict_rs.store(b"huge")
    unscanned = await world.upload(b"huge")
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == "failed"
    assert world.pict_rs.purged == []


async def test_a_file_that_fails_rests_and_is_given_up_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pict_rs.store(b"good")
    world.pict_rs.store(b"other")
    unscanned = await world.upload(b"good")
    world.looks_fail = True
    rescanner = world.rescanner()
    await rescanner.work_off()
    asked = len(world.pict_rs.requests)
    await rescanner.work_off()
    assert len(world.pict_rs.requests) == asked  # it rests
    other = await world.upload(b"other")
    world.looks_fail = False
    await rescanner.work_off()
    assert await world.state(other) == "scanned"  # and the others don't wait for it
    world.looks_fail = True
    monkeypatch.setattr("gateway.rescan.LONGEST_REST", 0.0)
    rescanner = world.rescanner()
    for _ in range(MOST_TRIES):
        assert await world.state(unscanned) == "pending"
        await rescanner.work_off()
    assert await world.state(unscanned) == "failed"


async def test_a_purge_that_is_refused_is_tried_again_without_scanning_again(world: World) -> None:
    world.pict_rs.store(b"bad", "i-png", "a.png")
    unscanned = await world.upload(b"bad")
    world.pict_rs.purge_fails_with = 403
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == "pending"
    world.pict_rs.purge_fails_with = 0
    await world.rescanner("purge").work_off()
    assert await world.state(unscanned) == "scanned"
    assert world.pict_rs.purged == ["a.png"]
    assert world.inference.scored == [b"bad"]


async def test_it_runs_until_it_is_cancelled(world: World) -> None:
    world.pict_rs.store(b"good")
    unscanned = await world.upload(b"good")
    running = asyncio.create_task(world.rescanner().run())
    await asyncio.wait_for(world.settled("accept"), 30)
    assert await world.state(unscanned) == "scanned"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
