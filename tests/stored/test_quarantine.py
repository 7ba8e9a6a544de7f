"""Files in quarantine: sealed, verified, and brought back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagesafety.stored.place import PlaceSettingError
from imagesafety.stored.quarantine import Quarantine, QuarantineError, digest_of_name
from imagesafety.stored.sealing import SealError, new_key, parse_key, seal, unseal
from tests.stored.servers import BUCKET, S3Server, SftpServer

DATA = b"a picture" * 1000
DIGEST = hashlib.sha256(DATA).digest()
KEY = parse_key(new_key())
SEALED, NOTES = f"{DIGEST.hex()}.quarantined", f"{DIGEST.hex()}.json"
WHY = {"from": "file:///media", "name": "a.png", "rule": "a rule", "similarities": {"a": 0.5}}


def test_a_sealed_file_shows_nothing_and_comes_back() -> None:
    sealed = seal(KEY, DATA)
    assert b"picture" not in sealed
    assert unseal(KEY, sealed, DIGEST) == DATA
    assert seal(KEY, DATA) != sealed


@pytest.mark.parametrize("what", ["key", "digest", "bytes", "end", "start"])
def test_what_is_not_the_file_is_not_unsealed(what: str) -> None:
    key, sealed, digest = KEY, seal(KEY, DATA), DIGEST
    if what == "key":
        key = parse_key(new_key())
    elif what == "digest":
        digest = hashlib.sha256(b"other").digest()
    elif what == "bytes":
        sealed = sealed[:100] + bytes([sealed[100] ^ 1]) + sealed[101:]
    else:
        sealed = sealed[:30] if what == "end" else sealed[1:]
    with pytest.raises(SealError):
        unseal(key, sealed, digest)


@pytest.mark.parametrize("text", ["", "abc", "QUJD", "ä" * 44])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(SealError, match="quarantine key"):
        parse_key(text)


@dataclass
class Kept:
    """A quarantine, and what its server has by another way."""

    quarantine: Quarantine
    url: str
    options: dict[str, str]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], object]
    names: Callable[[], set[str]]


@pytest.fixture(params=["folder", "s3", "sftp"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        url, where = f"s3://{BUCKET}/a#b?c/quarantine", "a#b?c/quarantine/"
        return Kept(
            *(Quarantine(url, s3.options, KEY), url, s3.options),
            lambda name: s3.client.get_object(Bucket=BUCKET, Key=where + name)["Body"].read(),
            lambda name, data: s3.client.put_object(Bucket=BUCKET, Key=where + name, Body=data),
            lambda: {name.removeprefix(where) for name in s3.names()},
        )
    url, options, folder = str(tmp_path / "some" / "where"), {}, tmp_path / "some" / "where"
    if request.param == "sftp":
        sftp: SftpServer = request.getfixturevalue("sftp")
        url, options, folder = sftp.url("/a#b?c"), sftp.options, sftp.root / "a#b?c"
    return Kept(
        *(Quarantine(url, options, KEY), url, options),
        lambda name: (folder / name).read_bytes(),
        lambda name, data: (folder / name).write_bytes(data),
        lambda: {path.name for path in folder.iterdir()},
    )


def test_every_place_holds_files(kept: Kept) -> None:
    quarantine = kept.quarantine
    assert not quarantine.holds(DIGEST)
    with pytest.raises(QuarantineError, match="no such file"):
        quarantine.get(DIGEST)
    quarantine.hold(DATA, WHY)
    assert quarantine.holds(DIGEST)
    assert quarantine.get(DIGEST) == DATA
    quarantine.hold(DATA, WHY | {"rule": "another rule"})
    quarantine.hold(DATA, WHY | {"name": "b.png"})
    notes = json.loads(kept.read(NOTES))
    assert notes["sha256"] == DIGEST.hex()
    assert [(entry["name"], entry["rule"]) for entry in notes["found"]] == [
        ("a.png", "another rule"),
        ("b.png", "a rule"),
    ]
    assert kept.names() == {SEALED, NOTES}


def test_what_a_kill_left_half_written_is_written_anew(kept: Kept) -> None:
    kept.quarantine.hold(DATA, WHY)
    kept.write(SEALED, kept.read(SEALED)[:50])
    assert not kept.quarantine.holds(DIGEST)
    kept.quarantine.hold(DATA, WHY)
    assert kept.quarantine.get(DIGEST) == DATA


def test_what_another_key_has_sealed_is_left_as_it_is(kept: Kept) -> None:
    kept.quarantine.hold(DATA, WHY)
    sealed = kept.read(SEALED)
    other = Quarantine(kept.url, kept.options, parse_key(new_key()))
    with pytest.raises(QuarantineError, match="sealed under another key; move it away"):
        other.hold(DATA, WHY)
    assert kept.read(SEALED) == sealed


@pytest.mark.parametrize("damaged", [b"", b'{"sha', b"{}", b'{"found": [1]}'])
def test_where_files_are_from_is_never_dropped(kept: Kept, damaged: bytes) -> None:
    kept.quarantine.hold(DATA, WHY)
    kept.write(NOTES, damaged)
    with pytest.raises(QuarantineError, match="is damaged, which says where"):
        kept.quarantine.hold(DATA, WHY)
    assert kept.read(NOTES) == damaged


def test_a_server_that_stops_answering_is_not_waited_for(sftp: SftpServer) -> None:
    impatient = {**sftp.options, "keepalive_interval": 0.1, "keepalive_count_max": 1}
    quarantine = Quarantine(sftp.url("/away"), impatient, KEY)
    with sftp.stopped(), pytest.raises(QuarantineError, match="quarantine can't be used"):
        quarantine.hold(DATA, WHY)


def name_of(opened: int) -> str:
    return Path(f"/proc/self/fd/{opened}").readlink().name


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine(str(tmp_path), {}, KEY)
    quarantine.hold(DATA, WHY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(opened: int) -> None:
        if name_of(opened).endswith(".part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(QuarantineError, match="No space left"):
        quarantine.hold(DATA, WHY | {"name": "b.png"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_held_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watch(opened: int) -> None:
        synced.append(name_of(opened).split(".")[0])
        fsync(opened)

    monkeypatch.setattr(os, "fsync", watch)
    Quarantine(str(tmp_path / "new"), {}, KEY).hold(DATA, WHY)
    assert synced == [tmp_path.name, *(DIGEST.hex(), "new") * 2]
    synced.clear()  # a copy that is there already may come from a run that was killed
    Quarantine(str(tmp_path / "new"), {}, KEY).hold(DATA, WHY)
    assert synced[:2] == [DIGEST.hex(), "new"]


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("memory://q", {}, "memory://… is no quarantine"),
        ("ftp://host/a", {}, "ftp://… is no quarantine"),
        ("simplecache::s3://b/a", {}, "is no quarantine"),
        ("", {}, "no path"),
        ("s3:///a", {}, "bucket is missing"),
        ("sftp:///a", {}, "host is missing"),
        ("/tmp", {"a": "b"}, "takes no --quarantine-option"),
    ],
)
def test_only_what_stays_is_a_quarantine(url: str, options: dict[str, str], reason: str) -> None:
    with pytest.raises(PlaceSettingError, match=reason):
        Quarantine(url, options, KEY)


@pytest.mark.parametrize("name", [DIGEST.hex(), f"x/{DIGEST.hex().upper()}.quarantined"])
def test_a_file_is_named_by_its_hash(name: str) -> None:
    assert digest_of_name(name) == DIGEST
    with pytest.raises(QuarantineError):
        digest_of_name("../../etc/passwd")
