"""The client of pict-rs, against a server that answers as pict-rs does."""

import hashlib
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from gateway.pict_rs import NotStoredError, PictRs, PictRsError
from tests.gateway.fake_pict_rs import API_KEY, FakePictRs, fake_pict_rs
from tests.gateway.serving import serving


@pytest.fixture
async def fake() -> AsyncIterator[FakePictRs]:
    async with fake_pict_rs() as fake:
        yield fake


@pytest.fixture
async def pict_rs(fake: FakePictRs) -> AsyncIterator[PictRs]:
    async with PictRs(fake.url, API_KEY) as client:
        yield client


async def find(client: PictRs, data: bytes, media_type: str = "image/png") -> tuple[str, ...]:
    return await client.find(hashlib.sha256(data).digest(), len(data), media_type)


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


@pytest.mark.parametrize(
    ("media_type", "format_name"),
    [
        ("image/apng", "a-apng"),
        ("image/avif", "i-avif"),
        ("image/avif", "a-avif"),
        ("image/gif", "a-gif"),
        ("image/jpeg", "i-jpeg"),
        ("image/jxl", "i-jxl"),
        ("image/png", "i-png"),
        ("image/webp", "i-webp"),
        ("image/webp", "a-webp"),
        ("video/mp4", "v-mp4"),
        ("video/webm", "v-webm"),
        ("image/png", "a-apng"),  # declared as another one than it is stored as
    ],
)
async def test_a_file_of_each_format_is_found(
    fake: FakePictRs, pict_rs: PictRs, media_type: str, format_name: str
) -> None:
    fake.store(b"wanted", format_name, "wanted")
    fake.store(b"other")
    assert await find(pict_rs, b"wanted", media_type) == ("wanted",)


async def test_what_is_not_stored_is_not_found(fake: FakePictRs, pict_rs: PictRs) -> None:
    assert await find(pict_rs, b"wanted") == ()
    fake.store(b"other")
    assert await find(pict_rs, b"wanted") == ()


async def test_another_format_of_slugs_is_an_error_and_not_a_missing_file() -> None:
    async def hashes(request: Request) -> Response:
        page = {"limit": 1, "current": "abc", "hashes": [{"hex": "00" * 45, "aliases": ["a"]}]}
        return JSONResponse({"msg": "ok", "page": page})

    app = Starlette(routes=[Route("/internal/hashes", hashes)])
    async with serving(app) as url, PictRs(url, API_KEY) as client:
        with pytest.raises(PictRsError, match="another format of slugs"):
            await find(client, b"wanted")


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
