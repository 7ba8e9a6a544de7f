"""New certificates come into force, also where they can't be read at first."""

import resource
from pathlib import Path

import pytest

from benchmarks.rehearsal.certificates import Authority
from inference.tls import TlsFiles, _Reader
from tests.e2e.certificates import write_issued


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    issue(tmp_path)
    return TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")


def issue(folder: Path) -> None:
    write_issued(Authority("ca"), folder, "server")


def test_what_can_not_be_read_once_is_tried_again_each_second(
    files: TlsFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    reader = _Reader(files, lambda: now)
    reader.first()
    assert reader.changed() is None
    issue(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        for _ in range(3):
            assert reader.changed() is None
            now += 1.0
        assert reader.changed() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert reader.changed() is None  # it was tried in this second
    now += 1.0
    assert reader.changed() is not None
    assert reader.changed() is None
    assert caplog.text.count("the old TLS files stay in force") == 1


def test_files_that_change_again_are_read_at_once(files: TlsFiles, tmp_path: Path) -> None:
    reader = _Reader(files, lambda: 100.0)
    reader.first()
    key = files.key.read_bytes()
    issue(tmp_path)
    fitting = files.key.read_bytes()
    files.key.write_bytes(key)
    assert reader.changed() is None
    files.key.write_bytes(fitting)
    assert reader.changed() is not None


def test_files_that_are_gone_for_a_while_are_the_old_ones(
    files: TlsFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = _Reader(files)
    reader.first()
    aside = files.key.rename(tmp_path / "aside")
    assert [reader.changed() for _ in range(3)] == [None] * 3
    aside.rename(files.key)
    assert reader.changed() is None
    assert caplog.text.count("the old TLS files stay in force") == 1
