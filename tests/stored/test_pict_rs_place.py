"""pict-rs as a place to scan."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from imagesafety.stored.opening import open_place
from imagesafety.stored.place import (
    TOO_MANY_BYTES,
    FileTroubleError,
    Place,
    PlaceError,
    PlaceSettingError,
    StoredFile,
    Unlisted,
)
from tests.fake_pict_rs import API_KEY, FakePictRs, HashFormat, fake_pict_rs
from tests.fake_pict_rs import StoredFile as StoredPictRsFile


@pytest.fixture
async def fake() -> AsyncIterator[FakePictRs]:
    async with fake_pict_rs() as fake:
        yield fake


@pytest.fixture
async def place(fake: FakePictRs) -> AsyncIterator[Place]:
    place = open_place(f"pict-rs+{fake.url}", {}, API_KEY)
    yield place
    await place.close()


async def listed(place: Place, since: float | None = None) -> list[StoredFile]:
    return [file async for file in place.files("", since) if isinstance(file, StoredFile)]


async def test_originals_are_listed_read_and_purged(fake: FakePictRs, place: Place) -> None:
    fake.store(b"old", "i-png", "old.png")
    fake.store(b"newer", "i-png", "newer.png", "again.png")
    await place.check()
    newer, old = await listed(place)
    assert (newer.aliases, newer.size, old.size) == (("newer.png", "again.png"), 5, 3)
    assert await place.read(newer, 10) == b"newer"
    assert await place.look(newer) == newer
    assert await place.remove(newer)
    assert fake.purged == ["newer.png"]
    assert await place.look(newer) is None
    assert not await place.remove(newer)
    with pytest.raises(FileTroubleError, match="removed before"):
        await place.read(newer, 10)


async def test_a_hash_of_a_format_that_is_not_known_is_a_name_like_any_other(
    fake: FakePictRs, place: Place
) -> None:
    fake.hash_format = HashFormat(lambda file: f"v2:{file.sha256[:30]}", lambda file: file.sha256)
    fake.store(b"a file", "i-next", "a.next", "b.next")
    [file] = await listed(place)
    assert (file.name, file.size) == (f"v2:{fake.files[0].sha256[:30]}", -1)
    assert await place.read(file, 10) == b"a file"
    with pytest.raises(FileTroubleError, match="over 5 bytes") as caught:
        await place.read(file, 5)
    assert caught.value.reason == TOO_MANY_BYTES
    as_recorded = replace(file, aliases=())  # by a scan that was killed
    assert await place.look(as_recorded) == file
    assert await place.remove(file)
    assert await place.look(file) is None
    assert await place.look(as_recorded) is None


async def test_a_file_that_pict_rs_fails_to_list_is_named(fake: FakePictRs, place: Place) -> None:
    fake.store(b"old", "i-png", "old.png")
    fake.files.append(StoredPictRsFile(b"lost", "i-png", ["lost.png"], is_lost=True))
    fake.files[-1].stored_at += timedelta(hours=1)
    await place.check()
    unlisted, old = [entry async for entry in place.files("", None)]
    assert isinstance(unlisted, Unlisted)
    assert "stored before 2" in unlisted.name
    assert "prune_missing" in unlisted.message
    assert isinstance(old, StoredFile)
    assert old.aliases == ("old.png",)


async def test_a_file_one_alias_of_which_was_deleted_is_still_there(
    fake: FakePictRs, place: Place
) -> None:
    fake.store(b"a file", "i-png", "a.png", "b.png")
    [file] = await listed(place)
    fake.files[0].aliases.remove("a.png")
    assert await place.read(file, 10) == b"a file"
    assert await place.look(file) == replace(file, aliases=("b.png",))
    assert await place.look(replace(file, aliases=("a.png",))) == replace(file, aliases=("b.png",))
    assert await place.remove(file)
    assert fake.files == []


async def test_what_is_older_is_not_listed(fake: FakePictRs, place: Place) -> None:
    fake.store(b"old", "i-png", "old.png")
    fake.store(b"newer", "i-png", "newer.png")
    fake.files[-1] = replace(fake.files[-1], stored_at=datetime.now(UTC))
    assert [file.aliases for file in await listed(place, time.time() - 3600)] == [("newer.png",)]


@pytest.mark.parametrize("since", [-1.0, -6.048e23, float("-inf")])
async def test_all_are_listed_since_before_there_was_time(
    fake: FakePictRs, place: Place, since: float
) -> None:
    fake.store(b"old", "i-png", "old.png")
    assert [file.aliases for file in await listed(place, since)] == [("old.png",)]


async def test_what_has_no_alias_is_said_to_have_none(fake: FakePictRs, place: Place) -> None:
    fake.store(b"orphan").aliases.clear()
    [file] = await listed(place)
    with pytest.raises(FileTroubleError, match="no alias"):
        await place.read(file, 10)
    assert not await place.remove(file)


async def test_what_is_listed_while_it_is_being_purged_is_gone(
    fake: FakePictRs, place: Place
) -> None:
    fake.store(b"a file").aliases.clear()
    [file] = await listed(place)
    fake.files.clear()
    with pytest.raises(FileTroubleError, match="removed before"):
        await place.read(file, 10)


async def test_trouble_of_pict_rs_and_of_a_file_are_told_apart(
    fake: FakePictRs, place: Place
) -> None:
    fake.store(b"a file")
    [file] = await listed(place)
    fake.fails_with = 500
    with pytest.raises(FileTroubleError, match="500"):
        await place.read(file, 10)
    with pytest.raises(PlaceError, match="500"):
        await place.check()
    fake.fails_with, fake.purge_fails_with = 0, 403
    with pytest.raises(FileTroubleError, match="403"):
        await place.remove(file)
    other = open_place(f"pict-rs+{fake.url}", {}, "not the key")
    with pytest.raises(PlaceError, match="does not take the API key"):
        await other.check()
    with pytest.raises(PlaceSettingError, match="no --prefix"):
        await anext(place.files("a", None))
