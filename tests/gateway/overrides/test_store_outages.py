"""Overrides while the database is down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.ledger.ledger import LedgerUnavailableError
from gateway.overrides.entries import NewOverride
from gateway.overrides.saved_copy import read_copy
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, picture, sha
from tests.gateway.overrides.running import running_store, until
from tests.gateway.postgres import running_postgres

BAD = NewOverride(DENY, sha(1), LOOK, note="bad")


async def test_a_start_while_postgresql_is_down(tmp_path: Path) -> None:
    copy = tmp_path / "data" / "overrides"
    with running_postgres() as server:
        url = server.new_database()
        async with running_store(url, copy) as store:
            await store.add([BAD, NewOverride(ALLOW, sha(2))], "me", "seen")
            before = store.current.entries
        server.stop()
        async with running_store(url, copy, poll_seconds=0.05) as store:
            assert store.current.entries == before
            assert store.current.alike([picture(LOOK)], 1).deny
            assert store.trouble() is not None
            with pytest.raises(LedgerUnavailableError):
                await store.remove(before[0].id, "me", "mistaken")
            server.start()
            await until(lambda: store.trouble() is None)
            assert store.current.entries == before
            await store.remove(before[0].id, "me", "mistaken")
            assert store.current.exact(sha(1)) is None


async def test_overrides_stay_in_force_while_postgresql_is_down(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = server.new_database()
        async with (
            running_store(url, poll_seconds=0.05) as store,
            running_store(url, poll_seconds=0.05) as other,
        ):
            await store.add([BAD], "me", "seen")
            server.stop()
            await until(lambda: store.trouble() is not None)
            assert store.current.exact(sha(1))
            server.start()
            await until(lambda: store.trouble() is None)
            await store.add([NewOverride(ALLOW, sha(2))], "me", "harmless")
            await until(lambda: len(other.current) == 2)


@pytest.mark.parametrize("content", [None, b"nonsense", b""])
async def test_a_start_without_database_and_copy(tmp_path: Path, content: bytes | None) -> None:
    copy = tmp_path / "overrides"
    if content is not None:
        copy.write_bytes(content)
    with running_postgres() as server:
        url = server.new_database()
        server.stop()
        async with running_store(url, copy, poll_seconds=0.05) as store:
            assert len(store.current) == 0
            assert store.trouble() is not None
            server.start()
            await until(lambda: store.trouble() is None)
            await store.add([BAD], "me", "seen")
        async with running_store(url, copy) as store:
            assert len(store.current) == 1


async def test_overrides_that_alone_can_not_be_read_are_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_postgres() as server:
        url = server.new_database()
        role, name = server.new_name(), url.partition("@/")[2].partition("?")[0]
        server.run(f"create role {role} login", f"grant all on schema public to {role}", url=url)
        async with running_store(server.url(name, role), poll_seconds=0.05) as store:
            await store.add([BAD], "me", "seen")
            server.run(f"revoke all on overrides from {role}", url=url)
            await until(lambda: "permission denied" in caplog.text)
            for _ in range(3):
                with pytest.raises(LedgerUnavailableError):
                    await store.refresh()
            assert store.current.exact(sha(1))
            server.run(f"grant all on overrides to {role}", url=url)
            await until(lambda: store.trouble() is None)
    assert caplog.text.count("permission denied for table overrides") == 1


@pytest.mark.parametrize("down", [False, True])
async def test_a_copy_that_is_removed_is_written_again(down: bool, tmp_path: Path) -> None:
    copy = tmp_path / "data" / "overrides"
    with running_postgres() as server:
        url = server.new_database()
        async with running_store(url, copy) as store:
            await store.add([BAD], "me", "seen")
        before = read_copy(copy)
        if down:
            server.stop()
        async with running_store(url, copy, poll_seconds=0.05) as store:
            assert store.current.exact(sha(1))
            shutil.rmtree(copy.parent)
            await until(copy.exists)
            assert read_copy(copy) == before
