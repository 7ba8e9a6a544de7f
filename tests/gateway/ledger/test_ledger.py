"""The ledger with a database that does what it should."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, func, insert, select

from gateway.ledger.database import open_engine
from gateway.ledger.ledger import LedgerUnavailableError, NoLedger, Stored
from gateway.ledger.record import DecisionRecord
from gateway.ledger.rows import record_of
from gateway.ledger.tables import decisions, deliveries, override_changes, overrides, policies
from gateway.metrics import Metrics
from gateway.webhook_payload import payload_of
from imagesafety.policy import Action
from imagesafety.policy_file import find_policy, load_policy
from tests.gateway.ledger.records import (
    SCORED_BY,
    a_record,
    become,
    ids_in,
    record_all,
    refuse_bad,
    running_ledger,
    soon,
)

DAY = 24 * 3600 * 1_000_000
POLICY = load_policy(find_policy("demo"))


@contextmanager
def counting_commits() -> Iterator[list[int]]:
    commits: list[int] = []

    def count(_: Connection) -> None:
        commits.append(1)

    event.listen(Engine, "commit", count)
    try:
        yield commits
    finally:
        event.remove(Engine, "commit", count)


def all_records(connection: Connection) -> list[DecisionRecord]:
    return [record_of(row) for row in connection.execute(select(decisions).order_by("seq"))]


def policies_in(url: str) -> set[str]:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return set(connection.execute(select(policies.c.digest)).scalars())
    finally:
        engine.dispose()


async def test_a_record_is_in_the_database_when_record_returns(url: str, tmp_path: Path) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        record = a_record()
        assert await ledger.record(record, until=soon()) is Stored.DATABASE
        assert await ledger.transaction(all_records) == [record]


async def test_rows_that_come_together_share_commits(url: str, tmp_path: Path) -> None:
    records = [a_record() for _ in range(200)]
    async with running_ledger(url, tmp_path / "spool") as ledger:
        await ledger.record(a_record(), until=soon())
        with counting_commits() as commits:
            assert set(await record_all(ledger, records)) == {Stored.DATABASE}
    assert len(commits) <= 10
    assert ids_in(url)[1:] == [record.id for record in records]


async def test_a_caller_that_gives_up_changes_nothing_for_others(url: str, tmp_path: Path) -> None:
    records = [a_record() for _ in range(20)]
    async with running_ledger(url, tmp_path / "spool") as ledger:
        tasks = [asyncio.create_task(ledger.record(one, until=soon())) for one in records]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1::2] == [Stored.DATABASE] * 10
    assert sorted(ids_in(url)) == sorted(record.id for record in records)


async def test_closing_writes_out_what_is_queued(url: str, tmp_path: Path) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        tasks = [asyncio.create_task(ledger.record(a_record(), until=soon())) for _ in range(50)]
        await asyncio.sleep(0)
    assert set(await asyncio.gather(*tasks)) == {Stored.DATABASE}
    assert len(ids_in(url)) == 50


async def test_the_same_record_twice_is_one_row(url: str, tmp_path: Path) -> None:
    record = a_record()
    async with running_ledger(url, tmp_path / "spool") as ledger:
        assert set(await record_all(ledger, [record] * 5)) == {Stored.DATABASE}
        await ledger.record(replace(record, message="another"), until=soon())
        assert await ledger.transaction(all_records) == [record]


async def test_a_clock_that_jumps_back_changes_no_order(url: str, tmp_path: Path) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        now = time.time_ns() // 1000
        records = [a_record(at=now - jump * 3600 * 1_000_000) for jump in (0, 5, 2, 9)]
        for record in records:
            await ledger.record(record, until=soon())
        found = await ledger.find_scored(records[-1].sha256 or b"", "image/jpeg", SCORED_BY)
        assert found == records[-1]
    assert ids_in(url) == [record.id for record in records]


async def test_a_row_that_the_database_refuses_hurts_no_other(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        records = [a_record() for _ in range(21)]
        records[7] = replace(records[7], message="bad")
        await ledger.transaction(refuse_bad)
        stored = await record_all(ledger, records)
        assert ledger.trouble() is None
    good = [record for index, record in enumerate(records) if index != 7]
    assert stored == [Stored.NOWHERE if index == 7 else Stored.DATABASE for index in range(21)]
    assert ids_in(url) == [record.id for record in good]
    assert "refuses" in caplog.text
    assert records[7].id in (tmp_path / "spool" / "refused").read_text()


async def test_scores_of_the_same_bytes_are_found(url: str, tmp_path: Path) -> None:
    first, second, unscored = (a_record(sha256=b"s" * 32) for _ in range(3))
    unscored = replace(unscored, views=(), perceptual_hashes=())
    async with running_ledger(url, tmp_path / "spool") as ledger:
        for record in (first, second, unscored, a_record()):
            await ledger.record(record, until=soon())
        assert await ledger.find_scored(b"s" * 32, "image/jpeg", SCORED_BY) == second
        assert await ledger.find_scored(b"s" * 32, "image/png", SCORED_BY) is None
        assert await ledger.find_scored(b"t" * 32, "image/jpeg", SCORED_BY) is None
        for name in ("policy_digest", "concepts_digest", "model", "weights_digest"):
            other = replace(SCORED_BY, **{name: "other"})
            assert await ledger.find_scored(b"s" * 32, "image/jpeg", other) is None


async def test_a_policy_is_there_before_its_first_row(url: str, tmp_path: Path) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        ledger.note_policy(POLICY)
        ledger.note_policy(POLICY)
        await ledger.record(a_record(), until=soon())
        found = await ledger.transaction(lambda c: c.execute(select(policies)).all())
    assert [(row.digest, row.text) for row in found] == [(POLICY.digest, POLICY.text)]


async def test_rejects_and_flags_get_a_delivery(url: str, tmp_path: Path) -> None:
    reject, flag = a_record(decision="reject"), a_record(flagged=True)
    shadow = a_record(shadow=Action.REJECT)
    async with running_ledger(url, tmp_path / "spool", webhooks=True) as ledger:
        await record_all(ledger, [reject, a_record(), flag, shadow, reject])
        found = await ledger.transaction(lambda c: c.execute(select(deliveries)).all())
    assert {(row.decision_id, row.event, row.payload, row.due) for row in found} == {
        (reject.id, "decision.rejected", payload_of(reject), reject.at),
        (flag.id, "decision.flagged", payload_of(flag), flag.at),
    }


async def test_without_webhooks_there_are_no_deliveries(url: str, tmp_path: Path) -> None:
    async with running_ledger(url, tmp_path / "spool") as ledger:
        await ledger.record(a_record(decision="reject"), until=soon())
        assert await ledger.transaction(lambda c: c.execute(select(deliveries)).all()) == []


async def test_a_transaction_is_all_or_nothing(url: str, tmp_path: Path) -> None:
    def fails(connection: Connection) -> None:
        connection.execute(insert(policies).values(digest="d", text="", first_used=0))
        raise KeyError("ours")

    async with running_ledger(url, tmp_path / "spool") as ledger:
        with pytest.raises(KeyError, match="ours"):
            await ledger.transaction(fails)
        assert await ledger.transaction(lambda c: c.execute(select(policies)).all()) == []


async def test_transactions_that_read_and_then_write_wait_for_each_other(
    url: str, tmp_path: Path
) -> None:
    def add(connection: Connection) -> None:
        count = connection.execute(select(func.count()).select_from(override_changes)).scalar_one()
        connection.execute(
            insert(override_changes).values(
                at=0, who="", what="added", why="", override_id=str(count), entry=""
            )
        )

    async with running_ledger(url, tmp_path / "spool") as ledger:
        records = [a_record() for _ in range(20)]
        work = [ledger.transaction(add) for _ in range(20)]
        recording = asyncio.create_task(record_all(ledger, records))
        await asyncio.gather(*work)
        assert Stored.NOWHERE not in await recording
        changes = await ledger.transaction(lambda c: c.execute(select(override_changes)).all())
    assert len(changes) == 20


async def test_old_decisions_go_and_overrides_stay(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns() // 1000
    old = [a_record(at=now - 91 * DAY, decision="reject") for _ in range(450)]
    young = [a_record(at=now - 89 * DAY, decision="reject"), a_record()]
    young[1] = replace(young[1], scored_by=replace(SCORED_BY, policy_digest="used"))

    def fill(connection: Connection) -> None:
        entry = {"action": "allow", "note": "", "who": "", "at": 0}
        connection.execute(insert(overrides).values(id="o", sha256=old[0].sha256, **entry))
        for digest, first_used in (("used", 0), ("unused", 0), ("new", now)):
            values = {"digest": digest, "text": "", "first_used": first_used}
            connection.execute(insert(policies).values(values))

    async with running_ledger(url, tmp_path / "spool", webhooks=True) as ledger:
        await record_all(ledger, old + young)
        await ledger.transaction(fill)
    monkeypatch.setattr("gateway.ledger.ledger.ADOPT_SECONDS", 0.01)
    async with running_ledger(url, tmp_path / "spool") as ledger:
        ledger.note_policy(POLICY)

        kept = {POLICY.digest, "used", "new"}
        await become(lambda: policies_in(url) == kept, "an unused policy is gone")
        events = await ledger.transaction(lambda c: c.execute(select(deliveries)).all())
        entries = await ledger.transaction(lambda c: c.execute(select(overrides)).all())
    assert ids_in(url) == [record.id for record in young]
    assert [event.decision_id for event in events] == [young[0].id]
    assert len(entries) == 1
    assert policies_in(url) == kept


@pytest.mark.parametrize(
    ("ages", "kept"),
    [
        ([1, 20000, 0], [1, 20000, 0]),  # the clock was behind for a while
        ([200, 150, 100], [200, 150, 100]),  # or is it ahead now?
        ([200, 100, 1, 0], [1, 0]),
        ([-3650, 200, 100, 1, -3650, 0], [1, -3650, 0]),  # or ahead for a while, twice
    ],
)
async def test_a_wrong_clock_deletes_nothing(
    ages: list[int],
    kept: list[int],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = time.time_ns() // 1000
    records = [a_record(at=max(0, now - age * DAY)) for age in ages]
    async with running_ledger(url, tmp_path / "spool") as ledger:
        for record in records:
            await ledger.record(record, until=soon())
        await ledger.transaction(
            lambda c: c.execute(insert(policies).values(digest="unused", text="", first_used=0))
        )
    expected = [record.id for record in records[-len(kept) :]]
    monkeypatch.setattr("gateway.ledger.ledger.ADOPT_SECONDS", 0.01)
    async with running_ledger(url, tmp_path / "spool") as ledger:
        ledger.note_policy(POLICY)
        if len(kept) == len(ages) and 0 not in ages:
            await become(lambda: "none is deleted" in caplog.text, "housekeeping is done")
        else:
            await become(lambda: "unused" not in policies_in(url), "housekeeping is done")
    assert ids_in(url) == expected


async def test_two_gateways_share_a_database_and_a_spool(url: str, tmp_path: Path) -> None:
    records = [a_record() for _ in range(400)]
    async with (
        running_ledger(url, tmp_path / "spool") as one,
        running_ledger(url, tmp_path / "spool") as other,
    ):
        stored = await asyncio.gather(
            *(record_all(one, records[index : index + 20]) for index in range(0, 200, 20)),
            *(record_all(other, records[index : index + 20]) for index in range(180, 400, 20)),
        )
        assert all(Stored.NOWHERE not in some for some in stored)
    assert sorted(ids_in(url)) == sorted(record.id for record in records)


async def test_rows_are_counted_by_where_they_are(url: str, tmp_path: Path) -> None:
    metrics = Metrics()
    async with running_ledger(url, tmp_path / "spool", metrics=metrics) as ledger:
        await record_all(ledger, [a_record() for _ in range(3)])
    name, labels = "imagesafety_ledger_rows_total", {"stored": "database"}
    assert metrics.registry.get_sample_value(name, labels) == 3


async def test_no_ledger_keeps_nothing() -> None:
    ledger = NoLedger()
    await ledger.start()
    ledger.note_policy(POLICY)
    record = a_record()
    assert await ledger.record(record, until=soon()) is Stored.DATABASE
    assert await ledger.find_scored(record.sha256 or b"", "image/jpeg", SCORED_BY) is None
    with pytest.raises(LedgerUnavailableError, match="no ledger"):
        await ledger.transaction(lambda connection: None)
    assert ledger.trouble() is None
    await ledger.close()
