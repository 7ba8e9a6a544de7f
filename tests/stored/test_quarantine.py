"""Files in quarantine: sealed, verified, and brought back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from imagesafety.stored.quarantine import Quarantine, QuarantineError, digest_of_name
from imagesafety.stored.sealing import SealError, new_key, parse_key, seal, unseal
from tests.stored.servers import BUCKET, S3Server, SftpServer

DATA = b"a picture" * 1000
DIGEST = hashlib.sha256(DATA).digest()
KEY = parse_key(new_key())
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


@pytest.fixture(params=["folder", "s3", "sftp"])
def quarantine(request: pytest.FixtureRequest, tmp_path: Path) -> Quarantine:
    if request.param == "folder":
        return Quarantine(str(tmp_path / "some" / "where"), {}, KEY)
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        return Quarantine(f"s3://{BUCKET}/quarantine", s3.options, KEY)
    sftp: SftpServer = request.getfixturevalue("sftp")
    return Quarantine(sftp.url("/quarantine"), sftp.options, KEY)


def test_every_place_holds_files(quarantine: Quarantine) -> None:
    assert not quarantine.holds(DIGEST)
    with pytest.raises(QuarantineError, match="no such file"):
        quarantine.get(DIGEST)
    quarantine.hold(DATA, WHY)
    assert quarantine.holds(DIGEST)
    assert quarantine.get(DIGEST) == DATA
    quarantine.hold(DATA, WHY | {"rule": "another rule"})
    quarantine.hold(DATA, WHY | {"name": "b.png"})
    notes = json.loads(quarantine._files.cat_file(quarantine._path(DIGEST, ".json")))
    assert notes["sha256"] == DIGEST.hex()
    assert [(entry["name"], entry["rule"]) for entry in notes["found"]] == [
        ("a.png", "another rule"),
        ("b.png", "a rule"),
    ]


def test_what_a_kill_left_half_written_is_written_anew(quarantine: Quarantine) -> None:
    quarantine.hold(DATA, WHY)
    path = quarantine._path(DIGEST, ".quarantined")
    quarantine._files.pipe_file(path, quarantine._files.cat_file(path)[:50])
    quarantine._files.pipe_file(quarantine._path(DIGEST, ".json"), b'{"sha')
    assert not quarantine.holds(DIGEST)
    quarantine.hold(DATA, WHY)
    assert quarantine.get(DIGEST) == DATA


@pytest.mark.parametrize("name", [DIGEST.hex(), f"x/{DIGEST.hex().upper()}.quarantined"])
def test_a_file_is_named_by_its_hash(name: str) -> None:
    assert digest_of_name(name) == DIGEST
    with pytest.raises(QuarantineError):
        digest_of_name("../../etc/passwd")
