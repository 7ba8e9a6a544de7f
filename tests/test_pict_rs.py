"""The client of pict-rs where pict-rs fails, or lists in a format that is not known yet.

Without faults it is tried in tests/real_pict_rs, against this stand-in and the real ones.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from imagesafety.pict_rs import (
    DamagedError,
    Gap,
    NotStoredError,
    PictRs,
    PictRsError,
    UnknownFormatError,
)
from imagesafety.pict_rs_pages import StoredHash, sorted_time
from tests.fake_pict_rs import (
    API_KEY,
    FORMATS,
    FakePictRs,
    HashFormat,
    StoredFile,
    fake_pict_rs,
)
from tests.serving import serving


@pytest.fixture
async def fake() -> AsyncIterator[FakePictRs]:
    async with fake_pict_rs() as fake:
        yield fake


@pytest.fixture
async def pict_rs(fake: FakePictRs) -> AsyncIterator[PictRs]:
    async with PictRs(fake.url, API_KEY) as client:
        yield client


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UPLOADED = datetime(2026, 1, 1, tzinfo=UTC)  # when the stand-in says that files were stored
UPLOADED_NS = round(UPLOADED.timestamp()) * 10**9


async def find(
    client: PictRs, data: bytes, media_type: str = "image/png", at: datetime = UPLOADED
) -> tuple[str, ...]:
    return await client.find(hashlib.sha256(data).digest(), len(data), media_type, at)


async def fetched(client: PictRs, alias: str, max_bytes: int = 1000) -> bytes:
    return b"".join([chunk async for chunk in client.fetch(alias, max_bytes)])


async def test_a_file_is_found_by_its_hash_among_many_with_one_request(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    fake.store(b"wanted", "i-png", "wanted.png", "again.png")
    for number in range(300):
        fake.store(b"other %d" % number)
    assert await find(pict_rs, b"wanted") == ("wanted.png", "again.png")
    assert fake.requests == ["GET /internal/hashes"]


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("media_type", ["", "image/png"])  # declared as another one than it is
async def test_a_file_of_each_format_is_found(
    fake: FakePictRs, pict_rs: PictRs, media_type: str, format_name: str
) -> None:
    fake.store(b"wanted", format_name, "wanted")
    fake.store(b"other")
    media_type = media_type or FORMATS[format_name][1]
    assert await find(pict_rs, b"wanted", media_type) == ("wanted",)


async def test_what_is_not_stored_is_not_found(fake: FakePictRs, pict_rs: PictRs) -> None:
    assert await find(pict_rs, b"wanted") == ()
    fake.store(b"other!")  # of the same size, at the same time
    assert await find(pict_rs, b"wanted") == ()


def blake(file: StoredFile) -> bytes:
    return hashlib.blake2b(file.data, digest_size=32).digest() + file.hash[32:]


NEXT_FORMATS = {
    "a longer size": HashFormat(
        lambda file: (file.hash[:32] + b"\0\0" + file.hash[32:]).hex(),
        lambda file: base64.urlsafe_b64encode(file.hash[:32] + b"\0\0" + file.hash[32:]).decode(),
    ),
    "another digest, of the same length": HashFormat(
        lambda file: blake(file).hex(),
        lambda file: base64.urlsafe_b64encode(blake(file)).decode(),
    ),
    "other slugs": HashFormat(slug_of=lambda file: f"after {file.sha256[:20]}"),
    "no hexadecimal digits": HashFormat(
        lambda file: f"blake2:{base64.b64encode(blake(file)).decode()}",
        lambda file: f"blake2:{base64.b64encode(blake(file)).decode()}",
    ),
    "capitals": HashFormat(lambda file: file.hash.hex().upper(), lambda file: file.hash.hex()),
}


@pytest.fixture(params=NEXT_FORMATS)
def next_fake(fake: FakePictRs, request: pytest.FixtureRequest) -> FakePictRs:
    fake.hash_format = NEXT_FORMATS[request.param]
    fake.more_fields = True
    return fake


@pytest.mark.parametrize("tells_current", [True, False])
@pytest.mark.parametrize("purged", [0, 1, 100])
async def test_all_are_listed_in_a_format_that_is_not_known(
    next_fake: FakePictRs, pict_rs: PictRs, purged: int, *, tells_current: bool
) -> None:
    next_fake.tells_current = tells_current
    for number in range(250):
        next_fake.store(b"file %d" % number, "i-png", f"{number}.png")
    seen = []
    async for entry in pict_rs.newest():
        assert isinstance(entry, StoredHash)
        seen.append(entry.aliases[0])
        if len(seen) == 100:
            del next_fake.files[150 - purged : 150]
    assert {f"{number}.png" for number in range(150 - purged)} <= set(seen)
    assert len(seen) == 250 or purged


async def test_a_file_is_looked_at_again_in_a_format_that_is_not_known(
    next_fake: FakePictRs, pict_rs: PictRs
) -> None:
    for number in range(150):
        next_fake.store(b"file %d" % number, "i-png", f"{number}.png", f"{number}-again.png")
    entry = [entry async for entry in pict_rs.newest()][-1]
    assert isinstance(entry, StoredHash)
    assert await pict_rs.look(entry.hex, ["gone.png", "0.png"]) == ("0.png", "0-again.png")
    assert await pict_rs.look(entry.hex, []) == ("0.png", "0-again.png")
    del next_fake.files[0]
    assert await pict_rs.look(entry.hex, ["0.png"]) == ()
    assert await pict_rs.look(entry.hex, []) == ()


async def test_a_file_is_found_by_its_time_in_a_format_that_is_not_known(
    next_fake: FakePictRs, pict_rs: PictRs
) -> None:
    for minute in range(-300, 300):
        file = next_fake.store(b"file %d" % abs(minute), "i-png", f"{minute}.png")
        next_fake.files[-1] = replace(file, stored_at=UPLOADED + timedelta(minutes=minute))
    next_fake.files[300 + 2].data = b"wanted"
    assert await find(pict_rs, b"wanted") == ("2.png",)
    assert len(next_fake.requests) < 40


async def test_what_is_not_found_in_a_format_that_is_not_known_is_not_said_to_be_gone(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    fake.hash_format = NEXT_FORMATS["no hexadecimal digits"]
    assert await find(pict_rs, b"wanted") == ()  # nothing is stored at all
    fake.store(b"wanted")
    with pytest.raises(UnknownFormatError, match="format that is not known"):
        await find(pict_rs, b"wanted", at=UPLOADED + timedelta(days=1))
    with pytest.raises(UnknownFormatError, match="format that is not known"):
        await find(pict_rs, b"another")


@pytest.mark.parametrize("tells_current", [True, False])
async def test_a_listing_that_does_not_go_on_is_an_error(
    fake: FakePictRs, pict_rs: PictRs, *, tells_current: bool
) -> None:
    fake.ignores_slugs, fake.tells_current = True, tells_current
    for number in range(250):
        fake.store(b"file %d" % number)
    with pytest.raises(PictRsError, match="does not go on"):
        await listed(pict_rs)


async def listed(client: PictRs, until: Collection[str] = ()) -> list[str]:
    entries = [entry async for entry in client.newest(until)]
    return [a for entry in entries if isinstance(entry, StoredHash) for a in entry.aliases]


async def test_all_are_listed_page_by_page_from_the_newest(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    for number in range(250):
        fake.store(b"file %d" % number, "i-png", f"{number}.png")
    assert await listed(pict_rs) == [f"{number}.png" for number in reversed(range(250))]
    assert len(fake.requests) == 3
    [*_, oldest] = [entry async for entry in pict_rs.newest()]
    assert isinstance(oldest, StoredHash)
    assert oldest.size == len(b"file 0")


async def test_none_are_listed_where_there_are_none(pict_rs: PictRs) -> None:
    assert await listed(pict_rs) == []


@pytest.mark.parametrize("purged", [1, 5, 100])
async def test_nothing_is_left_out_when_files_are_purged_during_the_listing(
    fake: FakePictRs, pict_rs: PictRs, purged: int
) -> None:
    for number in range(250):
        fake.store(b"file %d" % number, "i-png", f"{number}.png")
    seen = []
    async for entry in pict_rs.newest():
        assert isinstance(entry, StoredHash)
        seen.append(entry.aliases[0])
        if len(seen) == 100:  # the next page would begin at 149
            del fake.files[150 - purged : 150]
            if purged == 100:  # and nothing is left of the page that we have
                del fake.files[50:]
    rest = {f"{number}.png" for number in range(150 - purged)}
    assert rest <= set(seen)


@pytest.mark.parametrize("on_postgres", [False, True])
@pytest.mark.parametrize("older", [0, 3, 30])
@pytest.mark.parametrize("newer", [0, 3])
async def test_a_listing_ends_at_a_time(
    fake: FakePictRs, pict_rs: PictRs, older: int, newer: int, *, on_postgres: bool
) -> None:
    fake.on_postgres = on_postgres
    time = datetime(2026, 5, 1, tzinfo=UTC)
    for number in range(older):
        fake.store(b"older %d" % number, "i-png", f"older {number}")
    for number in range(newer):
        fake.store(b"newer %d" % number, "i-png", f"newer {number}")
        fake.files[-1] = replace(fake.files[-1], stored_at=time.replace(day=2))
    until = {entry.hex for entry in await pict_rs.stored_before(time)}
    assert await listed(pict_rs, until) == [f"newer {number}" for number in reversed(range(newer))]
    if older:  # somebody may purge the first of them
        del fake.files[older - 1]
        assert set(await listed(pict_rs, until)) <= {f"newer {number}" for number in range(newer)}


@pytest.mark.parametrize("minutes", [0, 1, 10, 60])
async def test_a_listing_up_to_a_time_that_fjall_sorts_wrongly_leaves_nothing_out(
    fake: FakePictRs, pict_rs: PictRs, minutes: int
) -> None:
    fake.on_fjall = True
    # 18 minutes that fjall sorts as 14 hours later.
    wrong = (0x2E << 40 | UPLOADED_NS >> 48 << 48) / 1e9
    begin = datetime.fromtimestamp(wrong, UTC)
    for minute in range(-120, 120):
        file = fake.store(b"%d" % minute, "i-png", f"{minute}")
        fake.files[-1] = replace(file, stored_at=begin + timedelta(minutes=minute, seconds=1))
    until = {entry.hex for entry in await pict_rs.stored_before(begin + timedelta(minutes=minutes))}
    assert until
    seen = await listed(pict_rs, until)
    assert {str(minute) for minute in range(minutes, 120)} <= set(seen)
    assert len(seen) < 160


def test_a_time_that_is_sorted_rightly_is_one_shortly_before() -> None:
    for days in range(0, 3000, 7):
        time = datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC) + timedelta(days=days, hours=days)
        right = sorted_time(time)
        assert b"." not in (round((right - EPOCH) / timedelta(microseconds=1)) * 1000).to_bytes(16)
        assert timedelta() <= time - right < timedelta(days=4)


async def test_all_are_listed_where_pict_rs_does_not_tell_what_is_older(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    fake.store(b"older", "i-png", "a.png").has_details = False
    until = await pict_rs.stored_before(datetime(2026, 5, 1, tzinfo=UTC))
    assert await listed(pict_rs, {entry.hex for entry in until}) == ["a.png"]


@pytest.mark.parametrize("on_postgres", [False, True])
@pytest.mark.parametrize("older", [0, 30])
async def test_all_are_listed_when_files_come_during_the_search_for_a_time(
    fake: FakePictRs, pict_rs: PictRs, older: int, *, on_postgres: bool
) -> None:
    fake.on_postgres = on_postgres
    time = datetime(2026, 5, 1, tzinfo=UTC)

    def upload() -> None:
        number = len(fake.files) - older
        fake.store(b"newer %d" % number, "i-png", f"newer {number}")
        fake.files[-1] = replace(fake.files[-1], stored_at=time.replace(day=2))

    for number in range(older):
        fake.store(b"older %d" % number, "i-png", f"older {number}")
    for _ in range(30):
        upload()
    fake.on_answered = upload
    until = {entry.hex for entry in await pict_rs.stored_before(time)}
    fake.on_answered = lambda: None
    newer = len(fake.files) - older
    assert newer > 30
    assert await listed(pict_rs, until) == [f"newer {number}" for number in reversed(range(newer))]


@pytest.mark.parametrize("on_postgres", [False, True])
@pytest.mark.parametrize(
    "lost", [{0}, {249}, {120}, {121, 122, 123}, {100, 200}, {0, 1, 2}, {247, 248, 249}]
)
async def test_files_that_pict_rs_fails_to_list_are_passed_over_and_named(
    fake: FakePictRs, pict_rs: PictRs, lost: set[int], *, on_postgres: bool
) -> None:
    fake.on_postgres = on_postgres
    first = datetime.now(UTC) - timedelta(days=2)
    for number in range(250):
        file = fake.store(b"file %d" % number, "i-png", f"{number}.png")
        fake.files[-1] = replace(
            file, is_lost=number in lost, stored_at=first + timedelta(minutes=7 * number)
        )
    entries = [entry async for entry in pict_rs.newest()]
    seen = [a for entry in entries if isinstance(entry, StoredHash) for a in entry.aliases]
    assert seen == [f"{number}.png" for number in reversed(range(250)) if number not in lost]
    gaps = [entry for entry in entries if isinstance(entry, Gap)]
    assert 1 <= len(gaps) <= len(lost)
    assert all("decode-image" in gap.message for gap in gaps)


@pytest.mark.parametrize("without_time", [range(121, 136), range(121, 250), {130}, set()])
@pytest.mark.parametrize("is_unsorted", [False, True])
async def test_a_listing_ends_though_times_do_not_lead_past_what_can_not_be_listed(
    fake: FakePictRs, pict_rs: PictRs, without_time: Collection[int], *, is_unsorted: bool
) -> None:
    first = datetime.now(UTC) - timedelta(days=2)
    for number in range(250):
        file = fake.store(b"file %d" % number, "i-png", f"{number}.png")
        minutes = 240 if is_unsorted and number == 121 else number
        fake.files[-1] = replace(
            file,
            is_lost=number == 120,
            has_details=number not in without_time,
            stored_at=first + timedelta(minutes=minutes),
        )
    async with asyncio.timeout(60):
        entries = [entry async for entry in pict_rs.newest()]
    seen = {a for entry in entries if isinstance(entry, StoredHash) for a in entry.aliases}
    assert seen >= {f"{number}.png" for number in range(121, 250)}
    assert any(isinstance(entry, Gap) for entry in entries)
    if len(seen) < 249:
        assert isinstance(entries[-1], Gap), "what is left out is reported"


async def test_a_file_that_pict_rs_fails_to_list_is_told_from_a_failure_of_pict_rs(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    fake.store(b"lost").is_lost = True
    with pytest.raises(DamagedError, match="decode-image"):
        await find(pict_rs, b"lost")
    assert await pict_rs.stored_before(UPLOADED) == ()
    fake.fails_with = 500
    with pytest.raises(PictRsError) as caught:
        await find(pict_rs, b"lost")
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"page": {"hashes": [1]}}', b"<html>"])
async def test_an_answer_that_is_no_page_is_an_error(answer: bytes) -> None:
    async def hashes(request: Request) -> Response:
        return Response(answer)

    app = Starlette(routes=[Route("/internal/hashes", hashes)])
    async with serving(app) as url, PictRs(url, API_KEY) as client:
        with pytest.raises(PictRsError, match="something else than a page"):
            await find(client, b"wanted")


async def test_a_wrong_key_is_named_and_not_shown(fake: FakePictRs) -> None:
    async with PictRs(fake.url, "not the key") as client:
        with pytest.raises(PictRsError, match="does not take the API key") as caught:
            await find(client, b"wanted")
    assert "not the key" not in str(caught.value)


async def test_an_old_pict_rs_and_one_that_is_down_are_named() -> None:
    async with serving(Starlette()) as url, PictRs(url, API_KEY) as client:
        with pytest.raises(PictRsError, match="older than"):
            await find(client, b"wanted")
    async with PictRs(url, API_KEY) as client:
        with pytest.raises(PictRsError, match="can't be reached"):
            await find(client, b"wanted")
        with pytest.raises(PictRsError, match="can't be reached"):
            await fetched(client, "a.png")
        with pytest.raises(PictRsError, match="can't be reached"):
            await client.purge("a.png")


async def test_a_file_is_fetched_without_the_key(fake: FakePictRs, pict_rs: PictRs) -> None:
    fake.store(b"bytes", "i-png", "a name/with & all.png")
    assert await fetched(pict_rs, "a name/with & all.png") == b"bytes"
    assert fake.keys_seen == [("/image/original", None)]


async def test_a_file_in_object_storage_is_fetched_from_there(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    keys = []

    async def picture(request: Request) -> Response:
        keys.append(request.headers.get("x-api-token"))
        return Response(b"bytes")

    fake.store(b"bytes", "i-png", "a.png")
    async with serving(Starlette(routes=[Route("/a.png", picture)])) as fake.object_storage:
        assert await fetched(pict_rs, "a.png") == b"bytes"
    assert keys == [None]


async def test_the_picture_for_what_is_not_found_is_not_the_file(
    fake: FakePictRs, pict_rs: PictRs
) -> None:
    fake.not_found_picture = b"a picture"
    with pytest.raises(NotStoredError):
        await fetched(pict_rs, "a.png")


async def test_a_file_over_the_limit_is_not_read_on(fake: FakePictRs, pict_rs: PictRs) -> None:
    fake.store(b"123456", "i-png", "a.png")
    with pytest.raises(PictRsError, match="over 5 bytes"):
        await fetched(pict_rs, "a.png", max_bytes=5)


async def test_purging_removes_the_file_once(fake: FakePictRs, pict_rs: PictRs) -> None:
    fake.store(b"bytes", "i-png", "a.png", "b.png")
    assert await pict_rs.purge("b.png")
    assert fake.files == []
    assert not await pict_rs.purge("b.png")


async def test_a_purge_that_is_refused_is_an_error(fake: FakePictRs, pict_rs: PictRs) -> None:
    fake.purge_fails_with = 403
    with pytest.raises(PictRsError, match="403 to /internal/purge"):
        await pict_rs.purge("a.png")


@pytest.mark.parametrize("path", ["", "/", "/pictrs", "/pictrs/"])
async def test_the_url_may_have_a_path(path: str) -> None:
    fake = FakePictRs()
    fake.store(b"wanted")
    app = Starlette(routes=[Mount(path.rstrip("/"), fake.app())])
    async with serving(app) as url, PictRs(url + path, API_KEY) as client:
        assert await find(client, b"wanted") == ("0.png",)
