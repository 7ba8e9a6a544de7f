"""A folder of this machine, with what is wrong in it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagesafety.stored.opening import open_place
from imagesafety.stored.place import Place, PlaceError, StoredFile, Unlisted


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def only(place: Place) -> StoredFile:
    [file] = [entry async for entry in place.files("", None)]
    assert isinstance(file, StoredFile)
    return file


async def found_in(place: Place) -> tuple[set[str], list[Unlisted]]:
    found = [entry async for entry in place.files("", None)]
    files = {entry.name for entry in found if isinstance(entry, StoredFile)}
    return files, [entry for entry in found if isinstance(entry, Unlisted)]


@dataclass
class BadEntry:
    """An entry of a folder that root can't be kept from otherwise."""

    entry: os.DirEntry[str]
    bad: str

    @property
    def name(self) -> str:
        return self.entry.name

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        if self.bad == "is_dir":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.entry.is_dir(follow_symlinks=follow_symlinks)

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@dataclass
class Scanned:
    """What os.scandir returns, with what is wrong in it."""

    entries: Iterator[os.DirEntry[str]]
    bad: str

    def __next__(self) -> os.DirEntry[str] | BadEntry:
        if self.bad == "next":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        entry = next(self.entries)
        return BadEntry(entry, self.bad) if self.bad and entry.name == "bad" else entry

    def close(self) -> None:
        pass


def spoil(monkeypatch: pytest.MonkeyPatch, folder: Path, bad: str) -> None:
    """Has what is in the folder fail as on a broken disk or a lost mount."""
    scandir, spoilt = os.scandir, folder.stat().st_ino

    def scan(opened: int) -> Scanned:
        return Scanned(scandir(opened), bad if os.fstat(opened).st_ino == spoilt else "")

    monkeypatch.setattr(os, "scandir", scan)


@pytest.mark.parametrize(
    ("bad", "name", "message"),
    [
        ("stat", "shut/bad", "Permission denied"),
        ("is_dir", "shut/bad", "Input/output error"),
        ("next", "shut/", "Stale file handle"),
    ],
)
async def test_a_bad_entry_is_told_of_and_all_others_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: str, name: str, message: str
) -> None:
    for folder in ("a", "shut", "z"):
        made(tmp_path / folder)
        (tmp_path / folder / "file.png").touch()
    (tmp_path / "shut" / "bad").touch()
    spoil(monkeypatch, tmp_path / "shut", bad)
    files, unlisted = await found_in(open_place(str(tmp_path), {}))
    assert files >= {"a/file.png", "z/file.png"}
    assert ("shut/file.png" in files) == (bad != "next")
    assert unlisted == [Unlisted(name, message)]


async def test_a_place_that_breaks_off_is_trouble_of_the_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.png").touch()
    spoil(monkeypatch, tmp_path, "next")
    with pytest.raises(PlaceError, match="Stale file handle"):
        await found_in(open_place(str(tmp_path), {}))


async def test_folders_in_folders_need_few_open_files(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(150):
        folder = made(folder / "d")
        (folder / "a.png").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = open_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 200, hard))
    try:
        files, unlisted = await found_in(open_place(str(tmp_path), {}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (len(files), unlisted) == (150, [])


async def test_a_lack_of_open_files_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made(tmp_path / "a")
    spoilt, scandir = (tmp_path / "a").stat().st_ino, os.scandir

    def scan(opened: int) -> object:
        if os.fstat(opened).st_ino == spoilt:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return scandir(opened)

    monkeypatch.setattr(os, "scandir", scan)
    opened = open_files()
    files, unlisted = await found_in(open_place(str(tmp_path), {}))
    assert (files, unlisted) == (set(), [Unlisted("a/", "Too many open files")])
    assert open_files() == opened


async def test_a_file_that_is_gone_is_removed_whatever_the_disk_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.png").touch()
    place = open_place(str(tmp_path), {})
    file = await only(place)

    def fail(opened: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    assert await place.remove(file)
    assert not (tmp_path / "a.png").exists()


async def test_a_file_stays_the_same_version_until_it_is_written_anew(tmp_path: Path) -> None:
    """Whoever owns it, and however many names a backup gives it."""
    place = open_place(str(tmp_path), {})
    (tmp_path / "a.png").write_bytes(b"one")
    before = await only(place)
    (tmp_path / "a.png").chmod(0o600)
    os.link(tmp_path / "a.png", tmp_path.parent / "backup.png")
    assert (await only(place)).version == before.version
    (tmp_path / "b.png").write_bytes(b"two")
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    now = await only(place)
    assert now.version != before.version
    assert not await place.remove(before)
    assert await place.remove(now)
