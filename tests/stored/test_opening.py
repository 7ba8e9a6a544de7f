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
        ("sftp://host:port/a", {}, "", "[Pp]ort"),
        ("pict-rs+http://host", {}, "", "needs its API key"),
        ("pict-rs+http://", {}, "key", "host is missing"),
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


def test_names_are_shown_without_what_a_terminal_would_obey() -> None:
    assert printable("a\x1b[2Jb\n\udcff ü") == r"a\x1b[2Jb\n\udcff ü"
