"""The copy of the overrides on disk."""

from pathlib import Path

import pytest

from gateway.overrides.matching import Override
from gateway.overrides.override_rows import Mark
from gateway.overrides.saved_copy import CopyError, SavedCopy, read_copy, write_copy
from tests.gateway.overrides.drafts import ALLOW, DENY, LOOK, override, sha

ENTRIES = [
    override("1", DENY, sha256=sha(1), note="line\u2028 <b>"),
    override("2", ALLOW, pdq=LOOK, rule="r"),
]


@pytest.mark.parametrize("mark", [None, Mark(7, 1_700_000_000_000_000, "2" * 32)])
@pytest.mark.parametrize("entries", [[], ENTRIES])
def test_it_keeps_the_entries_and_the_last_change(
    tmp_path: Path, entries: list[Override], mark: Mark | None
) -> None:
    path = tmp_path / "data" / "overrides"
    write_copy(path, ENTRIES)
    write_copy(path, entries, mark)
    assert read_copy(path) == SavedCopy(tuple(entries), mark)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_copy(tmp_path / "overrides") is None


@pytest.mark.parametrize("at", [0, 5, 40, 120, -3])
def test_a_damaged_copy_is_not_used(tmp_path: Path, at: int) -> None:
    path = tmp_path / "overrides"
    write_copy(path, ENTRIES)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(CopyError):
        read_copy(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\n", b'{"format": "other"}\n'])
def test_something_else_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "overrides"
    path.write_bytes(content)
    with pytest.raises(CopyError):
        read_copy(path)


def test_a_truncated_copy_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "overrides"
    write_copy(path, ENTRIES)
    data = path.read_bytes()
    for length in range(0, len(data), 17):
        path.write_bytes(data[:length])
        with pytest.raises(CopyError):
            read_copy(path)


def test_what_can_not_be_written_leaves_the_old_copy(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "in it").touch()
    with pytest.raises(CopyError):
        write_copy(path, ENTRIES)
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]
