"""Places and options as administrators write them."""

import asyncio
from pathlib import Path

import pytest

from imagesafety.stored.opening import open_place, parse_options, sftp_options
from imagesafety.stored.place import PlaceSettingError, printable


def identity(url: str, options: dict[str, str] | None = None) -> str:
    place = open_place(url, options or {}, "a key")
    asyncio.run(place.close())
    return place.identity


def test_places_are_known_again_by_what_is_not_secret(tmp_path: Path) -> None:
    assert identity(str(tmp_path)) == f"file://{tmp_path}"
    assert identity(f"file://{tmp_path}") == f"file://{tmp_path}"
    (tmp_path / "link").symlink_to(tmp_path)
    assert identity(str(tmp_path / "link")) == f"file://{tmp_path}"
    assert identity("s3://bucket") == "s3://bucket/"
    assert identity("s3://bucket/a/b/", {"secret": "hush"}) == "s3://bucket/a/b/"
    assert identity("s3://b", {"endpoint_url": "http://x:1"}) == "s3://b/ at http://x:1"
    assert identity("sftp://me:hush@host:22/a") == "sftp://me@host:22/a/"
    assert identity("pict-rs+http://host:8080/") == "pict-rs+http://host:8080"


@pytest.mark.parametrize(
    ("url", "options", "key", "reason"),
    [
        ("/none", {}, "", "/none: no such folder"),
        ("ftp://host/a", {}, "", "ftp://… is no place"),
        ("s3://", {}, "", "bucket is missing"),
        ("s3://bucket", {"no_such_option": 1}, "", None),
        ("sftp:///a", {}, "", "host is missing"),
        ("sftp://host:port/a", {}, "", "host or port"),
        ("pict-rs+http://host", {}, "", "needs its API key"),
        ("pict-rs+http://", {}, "key", "host is missing"),
        ("pict-rs+http://host/?a=b", {}, "key", "no place for"),
        ("pict-rs+http://host/#a", {}, "key", "no place for"),
        ("pict-rs+http://host", {"a": "b"}, "key", "takes no --storage-option"),
        ("/tmp", {"a": "b"}, "", "takes no --storage-option"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    url: str, options: dict[str, object], key: str, reason: str | None
) -> None:
    if reason is None:  # s3fs keeps it for boto, which says so at the first call
        return
    with pytest.raises(PlaceSettingError, match=reason) as caught:
        open_place(url, options, key)
    assert "\n" not in str(caught.value)


def test_options() -> None:
    written = ["endpoint_url=http://a?b=c", "anon=True", "port=22", "client_kwargs.region_name=x"]
    assert parse_options(written) == {
        "endpoint_url": "http://a?b=c",
        "anon": True,
        "port": 22,
        "client_kwargs": {"region_name": "x"},
    }
    for text in ("a", "=b", "known_hosts="):
        with pytest.raises(PlaceSettingError, match="KEY=VALUE"):
            parse_options([text])
    with pytest.raises(PlaceSettingError, match="value of its own"):
        parse_options(["a=b", "a.b=c"])


def test_options_of_ssh_come_from_url_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("fsspec").config.conf, "ssh", {"password": "hush", "port": 1})
    host, path, options = sftp_options("sftp://me@host:2/a b", {"client_keys": "k"})
    assert (host, path) == ("host", "/a b")
    assert options == {"username": "me", "port": 2, "password": "hush", "client_keys": "k"}


def test_paths_of_sftp_are_as_written_and_names_of_users_are_decoded() -> None:
    url = "sftp://me%40home:p%2F%23%3F%40ss@host/media#old/a?b%20c"
    host, path, options = sftp_options(url, {})
    assert (host, path) == ("host", "/media#old/a?b%20c")
    assert options == {"username": "me@home", "password": "p/#?@ss"}
    assert identity("sftp://me@host/media#old?") == "sftp://me@host/media#old?/"
    assert identity("s3://bucket/a#b?c") == "s3://bucket/a#b?c/"


@pytest.mark.parametrize(
    "url", ["sftp://me:hu#sh@host/a", "sftp://me:hu?sh@host/a", "sftp://me:hu/sh@host/a"]
)
def test_a_password_that_is_not_encoded_is_not_shown(url: str) -> None:
    with pytest.raises(PlaceSettingError, match=r"is written %2F|write %3F and %23") as caught:
        open_place(url, {})
    assert not any(part in str(caught.value) for part in ("hu", "sh@"))


def test_passwords_that_look_like_numbers_are_texts() -> None:
    texts = ["password", "username", "passphrase", "key", "secret", "token", "profile"]
    written = [f"{name}=1234" for name in texts]
    assert parse_options(written) == dict.fromkeys(texts, "1234")
    assert parse_options(["password=True"]) == {"password": "True"}
    assert parse_options(["client_kwargs.aws_session_token=12", "keepalive_interval=3"]) == {
        "client_kwargs": {"aws_session_token": "12"},
        "keepalive_interval": 3,
    }


def test_names_are_shown_without_what_a_terminal_would_obey() -> None:
    assert printable("a\x1b[2Jb\n\udcff ü") == r"a\x1b[2Jb\n\udcff ü"
