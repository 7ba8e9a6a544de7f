import contextlib
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.policy_text import PolicyText
from gateway.ledger.rows import row_of
from gateway.ledger.spool import MOST_BYTES, Spool
from gateway.ledger.spool_content import read_spool
from gateway.ledger.spool_lines import DamagedLineError, line_of_row, parse_line
from tests.gateway.ledger.records import a_record, spool_files
from tests.gateway.ledger.test_rows import RECORDS


def rows(count: int) -> list[dict[str, object]]:
    return [row_of(a_record(message=str(index))) for index in range(count)]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def drain(spool: Spool) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while (file := spool.oldest()) is not None:
        found += read_spool(file.path).rows
        spool.discard(file)
    return found


def test_rows_come_out_in_order_and_are_gone_then(spool: Spool, tmp_path: Path) -> None:
    written = rows(30)
    for start in range(0, 30, 7):
        spool.append(written[start : start + 7])
    assert spool.rows == 30
    assert drain(spool) == written
    assert spool.rows == 0
    assert spool_files(tmp_path) == []


@given(RECORDS.map(row_of))
def test_a_row_comes_back_from_its_line(row: dict[str, object]) -> None:
    assert parse_line(line_of_row(row)) == row


@given(RECORDS.map(row_of), st.data())
def test_a_line_with_one_wrong_byte_is_refused(row: dict[str, object], data: st.DataObject) -> None:
    line = bytearray(line_of_row(row))
    line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedLineError):
        parse_line(bytes(line))


def test_a_line_of_an_older_version_lacks_columns() -> None:
    row = row_of(a_record(reference="files/a.png", user_agent="pict-rs 0.5.25"))
    older = {name: row[name] for name in row.keys() - {"reference", "user_agent"}}
    assert parse_line(line_of_row(older)) == {**row, "reference": None, "user_agent": None}


def test_a_policy_comes_before_its_rows(spool: Spool) -> None:
    policy = PolicyText("d" * 64, 'model = "demo"\n', 5)
    spool.append(rows(1), [policy])
    file = spool.oldest()
    assert file is not None
    assert read_spool(file.path).policies == (policy,)


def test_large_files_are_followed_by_others(spool: Spool, tmp_path: Path) -> None:
    written = [{**row, "message": "x" * (MOST_BYTES // 2)} for row in rows(5)]
    for row in written:
        spool.append([row])
    assert len(spool_files(tmp_path)) == 3
    assert drain(spool) == written


@pytest.mark.parametrize("cut", [1, 10, 300])
def test_a_write_that_was_cut_off_costs_only_its_own_row(cut: int, tmp_path: Path) -> None:
    dead = Spool(tmp_path)
    written = rows(3)
    dead.append(written)
    dead.close()
    (file,) = spool_files(tmp_path)
    os.truncate(file, file.stat().st_size - cut)
    spool = Spool(tmp_path)
    spool.adopt()
    content = read_spool(file)
    assert (list(content.rows), content.damaged) == (written[:2], 0)
    spool.append(rows(1))
    assert len(drain(spool)) == 3


def test_damage_in_the_middle_is_counted_and_kept(spool: Spool, tmp_path: Path) -> None:
    written = rows(3)
    spool.append(written)
    file = spool.oldest()
    assert file is not None
    content = bytearray(file.path.read_bytes())
    content[len(content) // 2] ^= 1
    file.path.write_bytes(content)
    found = read_spool(file.path)
    assert (list(found.rows), found.damaged) == ([written[0], written[2]], 1)
    spool.discard(file, keep=True)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".damaged", ".owner"]


def test_what_is_kept_for_people_is_not_written_over(spool: Spool, tmp_path: Path) -> None:
    for _ in range(3):
        spool.append(rows(1))
        file = spool.oldest()
        assert file is not None
        spool.discard(file, keep=True)
    assert len(list(tmp_path.glob("*.damaged"))) == 3


def test_files_of_the_living_are_left_alone(spool: Spool, tmp_path: Path) -> None:
    spool.append(rows(2))
    other = Spool(tmp_path)
    other.adopt()
    assert other.rows == 0
    spool.close()
    other.adopt()
    other.adopt()
    assert other.rows == 2
    other.close()


def test_older_files_come_first_whoever_wrote_them(tmp_path: Path) -> None:
    written = rows(4)
    for row in written[:3]:
        dead = Spool(tmp_path)
        dead.append([row])
        dead.close()
    spool = Spool(tmp_path)
    spool.append(written[3:])
    spool.adopt()
    assert drain(spool) == written


def test_a_full_disk_loses_only_what_it_did_not_take(spool: Spool, tmp_path: Path) -> None:
    written = rows(4)
    spool.append(written[:2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool_files(tmp_path)[0].stat().st_size + 100, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            spool.append(written[2:3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append(written[3:])
    assert drain(spool) == [written[0], written[1], written[3]]


@pytest.mark.parametrize("how", ["removed", "moved away", "emptied", "lock removed"])
@pytest.mark.parametrize("before", [0, 2])
def test_rows_are_kept_after_the_folder_is_gone(how: str, before: int, tmp_path: Path) -> None:
    folder, written = tmp_path / "data" / "spool", rows(6)
    spool = Spool(folder)
    spool.adopt()
    if before:
        spool.append(written[:before])
    if how == "removed":
        shutil.rmtree(folder.parent)
    elif how == "moved away":
        folder.parent.rename(tmp_path / "elsewhere")
    else:
        for path in folder.iterdir():
            if how == "emptied" or path.suffix == ".owner":
                path.unlink()
    for row in written[before:]:
        spool.append([row])
        spool.adopt()
    assert [row for row in all_that_is_left(spool) if row in written[before:]] == written[before:]
    spool.close()
    assert list(folder.iterdir()) == []


def all_that_is_left(spool: Spool) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while (file := spool.oldest()) is not None:
        with contextlib.suppress(FileNotFoundError):
            found += read_spool(file.path).rows
        spool.discard(file)
    return found


def test_only_its_owner_can_read_the_spool(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "spool"
    spool = Spool(folder)
    spool.append(rows(1))
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert (modes, folder.stat().st_mode & 0o777) == ({".spool": 0o600, ".owner": 0o600}, 0o700)
    (lock,) = folder.glob("*.owner")
    with lock.open() as stranger, pytest.raises(BlockingIOError):
        fcntl.flock(stranger, fcntl.LOCK_EX | fcntl.LOCK_NB)
    spool.close()


def test_nothing_is_left_where_nothing_waits(tmp_path: Path) -> None:
    dead = Spool(tmp_path)
    dead.append(rows(1))
    dead.close()
    (tmp_path / "0123abcd.owner").touch()  # of one that was killed before it had written anything
    spool = Spool(tmp_path)
    spool.adopt()
    assert len(drain(spool)) == 1
    spool.close()
    assert list(tmp_path.iterdir()) == []


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_however_much_waits_costs_few_descriptors(tmp_path: Path) -> None:
    before = open_files()
    large = {**rows(1)[0], "message": "x" * (MOST_BYTES + 1)}
    for _ in range(3):
        dead = Spool(tmp_path)
        for _ in range(10):
            dead.append([large])
        assert open_files() <= before + 2
        dead.close()
    assert open_files() == before
    spool = Spool(tmp_path)
    spool.adopt()
    assert open_files() <= before + 4
    assert len(drain(spool)) == 30
    spool.close()


def test_of_very_much_the_rows_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.spool.COUNTED_BYTES", 1)
    dead = [Spool(tmp_path) for _ in range(2)]
    for one in dead:
        one.append(rows(20))
    for one in dead:
        one.close()
    spool = Spool(tmp_path)
    spool.adopt()
    assert 20 < spool.rows < 60
    assert len(drain(spool)) == 40
    assert spool.rows == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_that_can_not_be_used_is_told_at_the_start(mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        command = [sys.executable, "-c", ADOPT, folder]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "PermissionError" in ended.stderr


ADOPT = """
import os, sys
from pathlib import Path
from gateway.ledger.spool import Spool
os.seteuid(65534)
Spool(Path(sys.argv[1])).adopt()
"""
