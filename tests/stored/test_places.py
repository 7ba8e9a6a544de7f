"""What a scan needs of every place, with real servers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imagesafety.stored.opening import open_place, sftp_options
from imagesafety.stored.place import (
    GONE,
    TOO_MANY_BYTES,
    FileTroubleError,
    Place,
    PlaceError,
    StoredFile,
    Unlisted,
)
from imagesafety.stored.sftp import SftpFolder
from tests.stored.servers import BUCKET, S3Server, SftpServer

FILES = {
    "one.png": b"one",
    "sub/two.png": b"two",
    "sub/deeper/three.png": b"three",
    "sub/with space & ünïcode.png": b"four",
    "subway.png": b"five",
}


@dataclass
class Stored:
    """A place, and what its server has by another way."""

    place: Place
    put: Callable[[str, bytes], None]
    names: Callable[[], set[str]]


@pytest.fixture(params=["folder", "s3", "sftp"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stored]:
    case: Stored
    if request.param == "folder":
        case = in_folder(open_place(str(made(tmp_path / "media")), {}), tmp_path / "media")
    elif request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")

        def put(name: str, data: bytes) -> None:
            server.client.put_object(Bucket=BUCKET, Key=f"some/{name}", Body=data)

        server.client.put_object(Bucket=BUCKET, Key="somewhere else.png", Body=b"no")
        place = open_place(f"s3://{BUCKET}/some", server.options)
        case = Stored(place, put, lambda: {key[5:] for key in server.names() if key[4] == "/"})
    else:
        sftp: SftpServer = request.getfixturevalue("sftp")
        made(sftp.root / "some")
        case = in_folder(open_place(sftp.url("/some"), sftp.options), sftp.root / "some")
    yield case
    await case.place.close()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def in_folder(place: Place, folder: Path) -> Stored:
    def put(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    def names() -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    return Stored(place, put, names)


def fill(stored: Stored, files: Mapping[str, bytes] = FILES) -> None:
    for name, data in files.items():
        stored.put(name, data)


async def listed(
    place: Place, prefix: str = "", since: float | None = None
) -> dict[str, StoredFile]:
    found: dict[str, StoredFile] = {}
    async with contextlib.aclosing(place.files(prefix, since)) as files:
        async for file in files:
            assert isinstance(file, StoredFile), file
            assert file.name not in found
            found[file.name] = file
    return found


async def test_every_file_is_listed_and_read(stored: Stored) -> None:
    fill(stored)
    await stored.place.check()
    files = await listed(stored.place)
    assert {name: await stored.place.read(file, 100) for name, file in files.items()} == FILES
    assert {name: file.size for name, file in files.items()} == {
        name: len(data) for name, data in FILES.items()
    }


async def test_an_empty_place_has_no_files(stored: Stored) -> None:
    await stored.place.check()
    assert await listed(stored.place) == {}


@pytest.mark.parametrize("prefix", ["s", "sub", "sub/", "sub/deeper/thr", "sub/x", "one.png"])
async def test_a_prefix_is_of_names_and_not_of_folders(stored: Stored, prefix: str) -> None:
    fill(stored)
    expected = {name for name in FILES if name.startswith(prefix)}
    assert set(await listed(stored.place, prefix)) == expected


async def test_what_is_older_is_not_listed(stored: Stored) -> None:
    fill(stored)
    assert set(await listed(stored.place, since=time.time() - 3600)) == set(FILES)
    assert await listed(stored.place, since=time.time() + 3600) == {}


async def test_many_files_in_one_folder_are_listed(stored: Stored) -> None:
    names = {f"{number}.png" for number in range(1100)}  # S3 lists 1000 at a time
    fill(stored, dict.fromkeys(names, b"x"))
    assert set(await listed(stored.place)) == names


async def test_a_file_that_is_too_large_is_not_read(stored: Stored) -> None:
    stored.put("a.png", b"123456")
    [file] = (await listed(stored.place)).values()
    assert await stored.place.read(file, 6) == b"123456"
    for known in (file, replace(file, size=-1)):
        with pytest.raises(FileTroubleError) as caught:
            await stored.place.read(known, 5)
        assert (caught.value.reason, caught.value.may_pass) == (TOO_MANY_BYTES, False)


async def test_a_file_is_removed_once(stored: Stored) -> None:
    fill(stored)
    file = (await listed(stored.place))["sub/two.png"]
    assert await stored.place.look(file) == file
    assert await stored.place.remove(file)
    assert stored.names() == set(FILES) - {"sub/two.png"}
    assert await stored.place.look(file) is None
    assert not await stored.place.remove(file)
    with pytest.raises(FileTroubleError) as caught:
        await stored.place.read(file, 100)
    assert caught.value.reason == GONE


async def test_another_version_is_not_removed(stored: Stored) -> None:
    fill(stored)
    file = (await listed(stored.place))["one.png"]
    stored.put("one.png", b"another one")
    now = await stored.place.look(file)
    assert now is not None
    assert now.version != file.version
    assert not await stored.place.remove(file)
    assert stored.names() == set(FILES)
    assert await stored.place.remove(now)


async def test_a_part_of_a_listing_may_be_enough(stored: Stored) -> None:
    fill(stored, {f"{number}.png": b"x" for number in range(600)})
    async with contextlib.aclosing(stored.place.files("", None)) as files:
        async for _ in files:
            break
    assert len(await listed(stored.place)) == 600


@pytest.mark.parametrize("where", ["folder", "sftp"])
async def test_links_are_not_followed_and_odd_names_are_names(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if where == "folder":
        root = made(tmp_path / "media")
        place = open_place(str(root), {})
    else:
        sftp: SftpServer = request.getfixturevalue("sftp")
        root, place = sftp.root, open_place(sftp.url(), sftp.options)
    outside = made(tmp_path / "outside")
    (outside / "secret.png").write_bytes(b"secret")
    odd = b"not \xff utf-8\n.png"
    (root / os.fsdecode(odd)).write_bytes(b"odd")
    (root / "file.png").write_bytes(b"file")
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "pipe.png")
    files = await listed(place)
    assert set(files) == {os.fsdecode(odd), "file.png"}
    assert await place.read(files[os.fsdecode(odd)], 100) == b"odd"
    # A link that takes the place of a file, or of its folder, leads nowhere either.
    (root / "file.png").unlink()
    (root / "file.png").symlink_to(outside / "secret.png")
    with pytest.raises(FileTroubleError):
        await place.read(files["file.png"], 100)
    assert not await place.remove(files["file.png"])
    if where == "folder":
        with pytest.raises(FileTroubleError):
            await place.read(StoredFile("folder/secret.png", 6, "1"), 100)
        assert not await place.remove(StoredFile("folder/secret.png", 6, "1"))
        with pytest.raises(FileTroubleError):
            await place.read(StoredFile("pipe.png", 6, "1"), 100)
    assert await place.remove(files[os.fsdecode(odd)])
    assert (outside / "secret.png").read_bytes() == b"secret"
    await place.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "a.png").chmod(0)
    place = open_place(str(tmp_path), {})
    found = [file async for file in place.files("", None)]
    assert Unlisted("shut/", "Permission denied") in found
    [file] = [file for file in found if isinstance(file, StoredFile)]
    with pytest.raises(FileTroubleError, match="Permission denied"):
        await place.read(file, 100)
    (tmp_path / "shut").chmod(0o700)


async def test_a_folder_that_is_away_is_trouble_of_the_place(tmp_path: Path) -> None:
    place = open_place(str(made(tmp_path / "media")), {})
    (tmp_path / "media").rmdir()
    with pytest.raises(PlaceError, match="No such file"):
        await place.check()
    with pytest.raises(PlaceError, match="No such file"):
        await listed(place)


async def test_a_bucket_that_is_missing_and_a_server_that_is_down_are_named(s3: S3Server) -> None:
    place = open_place("s3://elsewhere", s3.options)
    with pytest.raises(PlaceError, match="s3://elsewhere can't be listed"):
        await place.check()
    await place.close()


async def test_folders_of_s3_programs_are_no_files(s3: S3Server) -> None:
    s3.client.put_object(Bucket=BUCKET, Key="folder/", Body=b"")
    s3.client.put_object(Bucket=BUCKET, Key="folder/a?versionId=1.png", Body=b"a")
    for url in (f"s3://{BUCKET}", f"s3://{BUCKET}/folder/"):
        place = open_place(url, s3.options)
        [file] = (await listed(place)).values()
        assert await place.read(file, 10) == b"a"
        await place.close()


async def test_an_object_that_was_replaced_is_not_read_in_its_place(s3: S3Server) -> None:
    s3.client.put_object(Bucket=BUCKET, Key="a.png", Body=b"a")
    place = open_place(f"s3://{BUCKET}", s3.options)
    [file] = (await listed(place)).values()
    s3.client.put_object(Bucket=BUCKET, Key="a.png", Body=b"another")
    with pytest.raises(FileTroubleError, match="was changed"):
        await place.read(file, 10)
    await place.close()


async def test_a_host_whose_key_is_not_known_is_refused(sftp: SftpServer, tmp_path: Path) -> None:
    (tmp_path / "no hosts").touch()
    for known_hosts in (tmp_path / "no hosts", None):
        options = {**sftp.options, "known_hosts": str(known_hosts)}
        if known_hosts is None:  # what ssh knows, then: nothing of this server
            del options["known_hosts"]
        place = open_place(sftp.url(), options)
        with pytest.raises(PlaceError, match="key is not a known one"):
            await place.check()
        await place.close()


async def test_somebody_unknown_is_refused(sftp: SftpServer) -> None:
    place = open_place(sftp.url(), {**sftp.options, "client_keys": str(sftp.known_hosts)})
    with pytest.raises(PlaceError, match="can't be reached"):
        await place.check()


async def test_a_lost_connection_is_made_again(sftp: SftpServer) -> None:
    (sftp.root / "a.png").write_bytes(b"a")
    place = open_place(sftp.url(), sftp.options)
    [file] = (await listed(place)).values()
    sftp.break_connections()
    with contextlib.suppress(PlaceError):
        await place.read(file, 10)
    assert await place.read(file, 10) == b"a"
    await place.close()


@pytest.mark.parametrize(
    ("options", "answer_seconds", "reason"),
    [
        ({"keepalive_interval": 0.1, "keepalive_count_max": 1}, 60, "keepalive"),
        ({"keepalive_interval": 0}, 0.3, "did not answer for 0.3 s"),
    ],
)
async def test_a_server_that_stops_answering_is_not_waited_for(
    sftp: SftpServer, options: dict[str, float], answer_seconds: float, reason: str
) -> None:
    (sftp.root / "a.png").write_bytes(b"a")
    host, path, said = sftp_options(sftp.url(), {**sftp.options, **options})
    place = SftpFolder(sftp.url(), host, path, said, answer_seconds=answer_seconds)
    [file] = (await listed(place)).values()
    async with asyncio.timeout(30):
        with sftp.stopped(), pytest.raises(PlaceError, match=reason):
            await place.read(file, 10)
        assert await place.read(file, 10) == b"a"
        with sftp.stopped(), pytest.raises(PlaceError, match=reason):
            await listed(place)
        assert await place.look(file) == file
        with sftp.stopped():
            await place.close()


async def test_a_server_that_does_not_answer_at_all_is_not_waited_for(sftp: SftpServer) -> None:
    place = open_place(sftp.url(), {**sftp.options, "connect_timeout": 0.3})
    async with asyncio.timeout(30):
        with sftp.stopped(), pytest.raises(PlaceError, match="can't be reached"):
            await place.check()
        await place.check()
        await place.close()


async def test_a_large_file_is_read_whole(sftp: SftpServer) -> None:
    data = os.urandom(700_000)
    (sftp.root / "a.png").write_bytes(data)
    place = open_place(sftp.url(), sftp.options)
    [file] = (await listed(place)).values()
    assert await place.read(file, len(data)) == data
    await place.close()


async def test_a_folder_that_is_missing_there_is_named(sftp: SftpServer) -> None:
    place = open_place(sftp.url("/none"), sftp.options)
    for used in (place.check(), listed(place)):
        with pytest.raises(PlaceError, match="no such folder"):
            await used
    await place.close()
