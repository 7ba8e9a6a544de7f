"""The client of pict-rs, against each server and each of its repositories."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagesafety.pict_rs import DamagedError, Gap, NotStoredError, PictRs, PictRsError
from imagesafety.pict_rs_pages import StoredHash
from tests.e2e.processes import wait_until
from tests.fake_pict_rs import API_KEY
from tests.media import drawn, still
from tests.real_pict_rs.pictures import good
from tests.real_pict_rs.servers import Kind, Server, filled_pict_rs

FILES = 230
_PICTURE = still(drawn(size=40))


def png(number: int) -> bytes:
    """A file of another size for each number. Decoders read no further than a picture's end."""
    return _PICTURE + bytes(number)


@dataclass
class Filled:
    """A server with files, of which the last one is the newest; tests may add and remove some."""

    server: Server
    files: list[bytes]


@pytest.fixture(scope="module")
def filled(
    any_kind: Kind, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    files = [png(number) for number in range(FILES)]
    folder = tmp_path_factory.mktemp("pict-rs")
    with filled_pict_rs(any_kind, folder, files, database=database) as server:
        yield Filled(server, files)


@pytest.fixture
async def client(filled: Filled) -> AsyncIterator[PictRs]:
    async with PictRs(filled.server.url, API_KEY) as client:
        yield client


async def find(client: PictRs, data: bytes, at: datetime | None = None) -> tuple[str, ...]:
    sha256 = hashlib.sha256(data).digest()
    return await client.find(sha256, len(data), "image/png", at or datetime.now(UTC))


async def fetched(client: PictRs, alias: str) -> bytes:
    return b"".join([chunk async for chunk in client.fetch(alias, 1_000_000)])


async def entries_of(client: PictRs, until: Collection[str] = ()) -> list[StoredHash]:
    entries = [entry async for entry in client.newest(until)]
    stored = [entry for entry in entries if isinstance(entry, StoredHash)]
    assert stored == entries
    return stored


async def test_all_are_listed_page_by_page_from_the_newest(filled: Filled, client: PictRs) -> None:
    entries = await entries_of(client)
    assert [alias for entry in entries for alias in entry.aliases] == filled.server.aliases()
    numbers = {hashlib.sha256(data).hexdigest(): len(data) for data in filled.files}
    sizes = [
        numbers[next(digest for digest in numbers if digest in entry.hex)] for entry in entries
    ]
    assert [entry.size for entry in entries] == sizes
    times = [entry.stored_at for entry in entries if entry.stored_at is not None]
    assert len(times) == len(entries) == len(set(sizes)) == FILES
    if filled.server.kind.repository != "fjall":  # which sorts some of them as newer ones
        assert sizes == sorted(sizes, reverse=True)
        assert times == sorted(times, reverse=True)


async def test_a_file_is_found_by_its_bytes(filled: Filled, client: PictRs) -> None:
    aliases = {entry.size: entry.aliases for entry in await entries_of(client)}
    for number in (0, FILES // 2, FILES - 1):
        data = filled.files[number]
        for at in (None, datetime(2020, 1, 1, tzinfo=UTC)):
            assert await find(client, data, at) == aliases[len(data)]
        assert await fetched(client, aliases[len(data)][0]) == data
    assert await find(client, png(FILES)) == ()
    assert await find(client, png(FILES), datetime(2020, 1, 1, tzinfo=UTC)) == ()


async def test_a_listing_ends_at_a_time(filled: Filled, client: PictRs) -> None:
    time = datetime.now(UTC)
    newer = [filled.server.stored(good()) for _ in range(3)]
    until = {entry.hex for entry in await client.stored_before(time)}
    listed = {alias for entry in await entries_of(client, until) for alias in entry.aliases}
    assert set(newer) <= listed
    # Where nothing is older, pict-rs on PostgreSQL answers with the newest.
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert await client.stored_before(long_ago) == ()
    for alias in newer:
        await purge(filled.server, client, alias)


async def test_a_file_is_purged_once_with_all_its_aliases(filled: Filled, client: PictRs) -> None:
    data = good()
    first, second = filled.server.stored(data), filled.server.stored(data)
    [entry] = [entry for entry in await entries_of(client) if first in entry.aliases]
    assert set(entry.aliases) == {first, second}
    assert set(await client.look(entry.hex, [first])) == {first, second}
    assert set(await client.look(entry.hex, [])) == {first, second}
    # Somebody deletes one of the two uploads.
    assert filled.server.delete(first).status_code == 200
    wait_until(lambda: not filled.server.has(first), "an alias is deleted")
    assert await client.look(entry.hex, [first]) == (second,)
    await purge(filled.server, client, second)
    assert await client.look(entry.hex, [first, second]) == ()
    assert await client.look(entry.hex, []) == ()
    assert not await client.purge(second)
    with pytest.raises(NotStoredError):
        await fetched(client, second)


async def purge(server: Server, client: PictRs, alias: str) -> None:
    """Purges a file. pict-rs only queues that."""
    assert await client.purge(alias)
    wait_until(lambda: not server.has(alias) and alias not in server.aliases(), "a purge")


async def test_nothing_is_left_out_when_files_are_purged_during_the_listing(
    filled: Filled, client: PictRs
) -> None:
    aliases = filled.server.aliases()
    removed = aliases[99:103]  # the next page would begin with one of them
    seen: list[str] = []
    async for entry in client.newest():
        assert isinstance(entry, StoredHash)
        seen += entry.aliases
        if len(seen) == 99:
            for alias in removed:
                await purge(filled.server, client, alias)
    assert set(seen) - set(removed) == set(aliases) - set(removed)


async def test_a_wrong_key_is_named(filled: Filled) -> None:
    async with PictRs(filled.server.url, "not the key") as client:
        with pytest.raises(PictRsError, match="does not take the API key"):
            await client.page()


def names_in(folder: Path) -> Iterator[Path]:
    """The files below a folder from which some are removed meanwhile."""
    for found, _, names in os.walk(folder):
        yield from (Path(found, name) for name in names)


def lose_a_file(server: Server) -> None:
    """Uploads a file, which goes before it was listed for the first time."""
    store = server.log.parent / "files"
    before = set(names_in(store))
    # What nobody claims has no blurhash yet, which is made while it is listed.
    server.upload_backgrounded(good(), claim=False)

    def new() -> list[Path]:
        return [path for path in names_in(store) if path not in before]

    # What was uploaded has no suffix, and goes when it is ingested.
    wait_until(lambda: [path.suffix for path in new()] == [".png"], "the ingestion of an upload")
    new()[0].unlink()


async def test_a_file_that_the_store_has_lost_is_passed_over_and_named(
    filled: Filled, client: PictRs
) -> None:
    server = filled.server
    if server.kind.is_stand_in:
        pytest.skip("the stand-in has no store that could lose a file")
    others = server.aliases()
    for _ in range(3):  # on a busy machine, an upload may fail after it was stored
        lose_a_file(server)
        if not server.lists():
            break
    with pytest.raises(DamagedError, match="No such file"):
        await client.page()
    entries = [entry async for entry in client.newest()]
    aliases = [a for entry in entries if isinstance(entry, StoredHash) for a in entry.aliases]
    assert aliases == others
    [gap] = [entry for entry in entries if isinstance(entry, Gap)]
    assert "No such file" in gap.message
    if server.kind.forgets_what_is_lost:
        server.prune_missing()
        wait_until(server.lists, "pict-rs forgets what is lost")
        assert server.aliases() == others
