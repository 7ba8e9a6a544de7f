"""Overrides in force, on both databases."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from gateway.ledger.ledger import LedgerUnavailableError, NoLedger
from gateway.metrics import Metrics
from gateway.overrides.changing import NoSuchOverrideError
from gateway.overrides.entries import NewOverride, OverrideError, as_json
from gateway.overrides.matching import Override
from gateway.overrides.override_rows import delta_since
from gateway.overrides.store import Added, OverrideStore
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, flipped, picture, sha
from tests.gateway.overrides.running import running_ledger, running_store, until
from tests.gateway.postgres import Postgres

HOSTILE = "'; DROP TABLE overrides; -- <script>alert(1)</script> %s {} ünïcödé 🐈"


def sayings(store: OverrideStore) -> list[tuple[str, bytes | None]]:
    return [(entry.action.value, entry.sha256) for entry in store.current.entries]


async def test_what_is_added_is_in_force_and_stays(database: str) -> None:
    async with running_store(database) as store:
        assert store.current.entries == ()
        entry = NewOverride(ALLOW, sha(1), LOOK, "r", "a meme", "d" * 32)
        assert await store.add([entry], "me", "it is harmless") == Added(1, 0)
        found = store.current.exact(sha(1))
        assert found is not None
        assert (found.action, found.pdq, found.rule) == (ALLOW, LOOK, "r")
        assert (found.note, found.who, found.decision_id) == ("a meme", "me", "d" * 32)
        assert store.current.alike([picture(flipped(LOOK, 31))], 1).allows == (found,)
        assert store.trouble() is None
    async with running_store(database) as again:
        assert again.current.entries == (found,)


async def test_every_change_is_recorded(database: str) -> None:
    async with running_store(database) as store:
        await store.add([NewOverride(DENY, sha(1), note="bad")], "ann", "seen")
        first = store.current.entries[0]
        await store.add([NewOverride(ALLOW, sha(1))], "bob", "it was a cat")
        second = store.current.entries[0]
        await store.add([NewOverride(ALLOW, sha(1))], "bob", "again")
        assert await store.remove(second.id, "cho", "not needed") == second
        assert len(store.current) == 0
        history = await store.history()
        assert [(item.what, item.who, item.why, item.override_id) for item in history] == [
            ("removed", "cho", "not needed", second.id),
            ("added", "bob", "it was a cat", second.id),
            ("removed", "bob", "it was a cat", first.id),
            ("added", "ann", "seen", first.id),
        ]
        assert [json.loads(item.entry) for item in history[2:]] == [as_json(first)] * 2
        assert await store.history(before=history[1].seq, limit=1) == [history[2]]
        assert await store.history(override_id=first.id) == history[2:]


async def test_text_is_only_text(database: str) -> None:
    async with running_store(database) as store:
        await store.add([NewOverride(ALLOW, sha(1), LOOK, HOSTILE, HOSTILE)], HOSTILE, HOSTILE)
        (entry,) = store.current.entries
        assert (entry.rule, entry.note, entry.who) == (HOSTILE, HOSTILE, HOSTILE)
        assert (await store.history())[0].why == HOSTILE
        for id_ in (HOSTILE, "", "%", "x" * 5000, "a\0b", "0" * 32):
            with pytest.raises(NoSuchOverrideError):
                await store.remove(id_, "me", "why not")
        assert await store.history(override_id=HOSTILE) == []
        assert await store.history(override_id="a\0b") == []
        assert await store.page(0, 10, "DROP table") == ([entry], 1)
    async with running_store(database) as again:
        assert again.current.entries == (entry,)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_of_another_encoding_has_the_same_overrides(
    encoding: str, postgres: Postgres
) -> None:
    database = postgres.new_database(f"encoding '{encoding}' locale 'C' template template0")
    async with running_store(database) as store:
        await store.add([NewOverride(ALLOW, sha(1), LOOK, "правило", "не те 🐈")], "Оля", "бо так")
        (entry,) = store.current.entries
        assert (entry.rule, entry.note, entry.who) == ("правило", "не те 🐈", "Оля")
        (change,) = await store.history()
        assert (change.why, json.loads(change.entry)) == ("бо так", as_json(entry))
        assert await store.page(0, 10, "не те") == ([entry], 1)


async def test_what_makes_no_sense_changes_nothing(database: str) -> None:
    async with running_store(database) as store:
        good = NewOverride(DENY, sha(1))
        for entries, who, why in (
            ([good, NewOverride(DENY)], "me", "because"),
            ([good], "", "because"),
            ([good], "me", ""),
            ([good], "me", "a\0b"),
        ):
            with pytest.raises(OverrideError):
                await store.add(entries, who, why)
        assert (store.current.entries, await store.history()) == ((), [])


async def test_an_entry_is_changed_in_one_step(database: str) -> None:
    async with running_store(database) as store:
        await store.add([NewOverride(DENY, sha(1)), NewOverride(DENY, sha(2))], "me", "seen")
        old = store.current.entries[0]
        new = NewOverride(ALLOW, sha(2), note="both")
        assert await store.change(old.id, new, "me", "the other file") == old
        assert sayings(store) == [("allow", sha(2))]
        assert [item.what for item in await store.history(limit=3)] == [
            "added",
            "removed",
            "removed",
        ]
        with pytest.raises(NoSuchOverrideError):
            await store.change(old.id, new, "me", "again")


async def test_pages_show_the_newest_first(database: str) -> None:
    async with running_store(database) as store:
        entries = [NewOverride(DENY, sha(number), note=f"number {number}") for number in range(12)]
        await store.add(entries, "me", "a list")

        async def notes(offset: int, limit: int, search: str = "") -> tuple[list[str], int]:
            shown, total = await store.page(offset, limit, search)
            return [entry.note.removeprefix("number ") for entry in shown], total

        assert await notes(0, 3) == (["11", "10", "9"], 12)
        assert await notes(9, 5) == (["2", "1", "0"], 12)
        assert await notes(12, 5) == ([], 12)
        assert await notes(0, 2, "NUMBER 1") == (["11", "10"], 3)
        assert await notes(0, 9, sha(7).hex()) == (["7"], 1)


async def test_a_long_list(database: str) -> None:
    entries = [NewOverride(DENY, sha(number), sha(number + 10_000)) for number in range(1300)]
    async with running_store(database) as other, running_store(database) as store:
        assert await store.add(entries, "me", "a list") == Added(1300, 0)
        assert len(store.current) == 1300
        assert await store.add(entries[:700], "me", "again") == Added(0, 700)
        await other.refresh()
        assert other.current.entries == store.current.entries
        assert other.current.alike([picture(sha(10_003))], 1).deny is not None


async def test_another_gateway_follows(database: str) -> None:
    async with (
        running_store(database, poll_seconds=0.01) as other,
        running_store(database) as store,
    ):
        await store.add([NewOverride(DENY, sha(1)), NewOverride(ALLOW, sha(2))], "me", "seen")
        await until(lambda: len(other.current) == 2)
        assert other.current.entries == store.current.entries
        await store.remove(store.current.entries[0].id, "me", "mistaken")
        await until(lambda: len(other.current) == 1)
        assert other.current.exact(sha(1)) is None
        await other.add([NewOverride(DENY, sha(3))], "you", "seen")
        await store.refresh()
        assert sayings(store) == [("allow", sha(2)), ("deny", sha(3))]


async def test_gateways_that_disagree_at_once(database: str) -> None:
    async with (
        running_store(database, poll_seconds=0.001) as one,
        running_store(database, poll_seconds=0.001) as two,
        running_store(database, poll_seconds=0.001) as watcher,
    ):
        for number in range(15):
            await asyncio.gather(
                one.add([NewOverride(DENY, sha(number % 3), note=f"{number}")], "one", "bad"),
                two.add([NewOverride(ALLOW, sha(number % 3), note=f"{number}")], "two", "good"),
                two.add([NewOverride(DENY, sha(100 + number))], "two", "another"),
            )
        for store in (one, two):
            await store.refresh()
        assert len(one.current) == 18
        assert sorted(one.current.entries, key=id_of) == sorted(two.current.entries, key=id_of)
        await until(lambda: len(watcher.current) == 18)
        await until(
            lambda: (
                {entry.id for entry in watcher.current.entries}
                == {entry.id for entry in one.current.entries}
            )
        )
        in_force: dict[str, str] = {}
        for change in reversed(await one.history(limit=1000)):
            if change.what == "added":
                in_force[change.override_id] = change.entry
            else:
                del in_force[change.override_id]
        assert in_force.keys() == {entry.id for entry in one.current.entries}


def id_of(entry: Override) -> str:
    return entry.id


async def test_many_changes_are_read_as_a_whole(database: str) -> None:
    async with running_ledger(database) as ledger:
        store = OverrideStore(ledger, Metrics())
        await store.start()
        await store.add([NewOverride(DENY, sha(number)) for number in range(5)], "me", "list")
        some = await ledger.transaction(lambda db: delta_since(db, 2, most=3))
        assert (some.seq, len(some.added), some.removed) == (5, 3, ())
        for seq, most in ((2, 2), (-1, 10), (99, 10)):  # 99: it is another database
            whole = await ledger.transaction(partial(delta_since, seq=seq, most=most))
            assert (whole.seq, len(whole.added), whole.removed) == (5, 5, None)
        nothing = await ledger.transaction(lambda db: delta_since(db, 5, most=3))
        assert (nothing.seq, nothing.added, nothing.removed) == (5, (), ())
        await store.close()


async def test_the_number_of_overrides_is_measured(database: str) -> None:
    async with running_ledger(database) as ledger:
        metrics = Metrics()
        store = OverrideStore(ledger, metrics)
        await store.start()
        assert metrics.registry.get_sample_value("imagesafety_overrides") == 0
        await store.add([NewOverride(DENY, sha(1))], "me", "seen")
        assert metrics.registry.get_sample_value("imagesafety_overrides") == 1
        await store.close()


async def test_without_a_ledger_there_are_no_overrides(tmp_path: Path) -> None:
    store = OverrideStore(NoLedger(), Metrics(), tmp_path / "copy")
    await store.start()
    assert (store.trouble(), len(store.current)) == (None, 0)
    with pytest.raises(LedgerUnavailableError):
        await store.add([NewOverride(DENY, sha(1))], "me", "seen")
    assert store.trouble() is None
    await store.close()
    assert files_in(tmp_path) == []


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
