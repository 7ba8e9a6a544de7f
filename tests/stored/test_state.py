"""What is kept between scans: the state, its lock, and the report that goes with it."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imagesafety.scores import PerceptualHash
from imagesafety.stored.finding import Finding, Kind
from imagesafety.stored.place import StoredFile
from imagesafety.stored.report_file import ReportError, ReportFile, ReportSettingError
from imagesafety.stored.seen import Seen
from imagesafety.stored.state import Known, State, StateError
from imagesafety.stored.state_file import default_state_file, locked

FILE = StoredFile("name \udcff\n.png", 3, "1")
HASHES = (PerceptualHash(b"\x01" * 32, 77),)
VIEWS = ((0.5, -0.25), (0.125, 1.0))
SEEN = Seen(b"\x02" * 32, partial="why", may_pass=True, views=VIEWS, total_frames=9, hashes=HASHES)
KNOWN = Known("1", 1, 1, SEEN, Finding(Kind.HIT, "a rule", 1, message="why"))


def test_what_is_recorded_is_known_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State(path, "somewhere")
    scoring = state.scoring("key", "model", "policy", has_hashes=True)
    assert state.scoring("key", "model", "policy", has_hashes=True) == scoring
    assert state.judging("one") != state.judging("two")
    state.record(FILE, KNOWN, {"kind": "hit"})
    assert state.known("other") is None
    state.close()
    state = State(path, "somewhere")
    assert state.known(FILE.name) == KNOWN
    assert state.scoring_of(scoring.id).policy == "policy"
    assert [line for _, line in state.lines_after(0)] == [{"kind": "hit"}]
    state.forget(FILE.name)
    assert state.known(FILE.name) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    state.close()


def test_the_state_of_another_place_is_refused(tmp_path: Path) -> None:
    State(tmp_path / "s", "one place").close()
    with pytest.raises(StateError, match="of one place, not of another"):
        State(tmp_path / "s", "another")
    (tmp_path / "t").write_text("no database" * 100)
    with pytest.raises(StateError, match="not a database"):
        State(tmp_path / "t", "one place")


def test_what_finds_no_room_on_the_disk_leaves_the_state_usable(tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite", "somewhere")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            state.tell({"kind": "x" * 1_000_000})  # which is written when it is committed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    state.tell({"kind": "y"})
    assert [line for _, line in state.lines_after(0)] == [{"kind": "y"}]
    state.close()


def test_one_scan_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.sqlite"
    code = (
        "import sys, pathlib; from imagesafety.stored.state_file import locked\n"
        f"with locked(pathlib.Path({str(path)!r})): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(StateError, match="another scan"), locked(path):
            pass
        other.kill()
        other.wait()
        with locked(path):
            pass


def test_state_files_are_named_by_their_place(tmp_path: Path) -> None:
    environment = {"XDG_DATA_HOME": str(tmp_path)}
    one = default_state_file("s3://bucket/a", environment)
    assert one.parent == tmp_path / "imagesafety" / "scans"
    assert one.name.startswith("s3-bucket-a-")
    assert one != default_state_file("s3://bucket-a", environment)
    assert ".local/share" in str(default_state_file("s3://bucket/a", {}))


def numbers(path: Path) -> list[object]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state.sqlite", "somewhere")


def test_each_line_is_in_the_report_once(state: State, tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    state.tell({"n": 0})
    report = ReportFile(path, state)
    state.tell({"n": 1})
    report.write()
    report.write()
    report.close()
    state.tell({"n": 2})
    ReportFile(path, state).close()
    ReportFile(path, state).close()
    assert numbers(path) == [0, 1, 2]
    ReportFile(tmp_path / "another.jsonl", state).close()
    assert numbers(tmp_path / "another.jsonl") == [0, 1, 2]


@pytest.mark.parametrize("kept", range(0, 200, 7))
def test_a_line_that_a_kill_cut_is_written_whole(state: State, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "report.jsonl"
    for number in range(3):
        state.tell({"n": number})
    ReportFile(path, state).close()
    path.write_bytes(path.read_bytes()[:kept])
    ReportFile(path, state).close()
    assert numbers(path) == [0, 1, 2]


def test_reports_of_several_scans_may_share_a_file(state: State, tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    other = State(tmp_path / "other.sqlite", "elsewhere")
    for number, one in enumerate((state, other, state)):
        one.tell({"n": number})
        ReportFile(path, one).close()
    assert numbers(path) == [0, 1, 2]


def test_a_report_that_knows_more_than_the_state_loses_nothing_that_comes(
    state: State, tmp_path: Path
) -> None:
    path = tmp_path / "report.jsonl"
    line = {"scan": state.id, "number": 7, "n": "before the power failed"}
    path.write_text(json.dumps(line) + "\n")
    report = ReportFile(path, state)
    state.tell({"n": "after"})
    report.write()
    assert numbers(path) == ["before the power failed", "after"]


@pytest.mark.parametrize("text", ["some notes\n", "{}\n", "some notes"])
def test_what_is_no_report_is_not_written_to(state: State, tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(ReportError, match="something else"):
        ReportFile(path, state)
    assert path.read_text() == text
    with pytest.raises(ReportError, match="No such file"):
        ReportFile(tmp_path / "none" / "report.jsonl", state)


def test_what_is_no_regular_file_is_no_report(tmp_path: Path, state: State) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ReportSettingError, match="it is no regular file"):
            ReportFile(path, state)


def test_a_report_is_of_one_scan_at_a_time(tmp_path: Path, state: State) -> None:
    path = tmp_path / "report.jsonl"
    first = ReportFile(path, state)
    with pytest.raises(ReportError, match="another scan is writing this report"):
        ReportFile(path, State(tmp_path / "other.sqlite", "file:///other"))
    first.close()
    ReportFile(path, state).close()
