"""What is kept on disk, and what is not believed."""

import logging
from pathlib import Path

import pytest

from inference.backends.cache import BackendCache, ModelFileName, default_cache_folder

NAME = ModelFileName("a" * 64, "b" * 64, "int8")


def kept(cache: BackendCache, content: bytes, name: ModelFileName = NAME) -> None:
    with cache.workspace() as workspace:
        made = workspace / "made.onnx"
        made.write_bytes(content)
        cache.keep_model(name, made)


def test_a_model_file_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    cache = BackendCache(folder)
    assert cache.model(NAME) is None
    kept(cache, b"model")
    found = BackendCache(folder).model(NAME)
    assert found is not None
    assert found.read_bytes() == b"model"
    assert cache.model(ModelFileName("a" * 64, "c" * 64, "int8")) is None
    assert len(list(folder.iterdir())) == 1, "the workspace is gone"
    assert folder.stat().st_mode & 0o077 == 0


def test_what_was_made_from_something_else_goes(tmp_path: Path) -> None:
    cache = BackendCache(tmp_path)
    kept(cache, b"old")
    kept(cache, b"another model's", ModelFileName("f" * 64, "b" * 64, "int8"))
    kept(cache, b"new", ModelFileName("a" * 64, "c" * 64, "int8"))
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"another model's", b"new"]


def test_a_damaged_model_file_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = BackendCache(tmp_path)
    kept(cache, b"model")
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"mod")
    assert cache.model(NAME) is None
    assert "damaged" in caplog.text
    kept(cache, b"model")
    assert cache.model(NAME) is not None


def test_nor_is_another_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BackendCache(tmp_path)
    kept(cache, b"model")
    cache.keep_choice("key", "tower", {})
    cache.keep_batch_times("key", TIMES)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert cache.model(NAME) is None
    assert cache.choice("key") is None
    assert cache.batch_times("key", 256) is None
    assert caplog.text.count("another user's") == 3


def test_a_choice_is_found_again(tmp_path: Path) -> None:
    BackendCache(tmp_path).keep_choice("key", "tower", {"trials": []})
    assert BackendCache(tmp_path).choice("key") == "tower"
    assert BackendCache(tmp_path).choice("other") is None


TIMES = {1: 0.004, 2: 0.006, 16: 0.03}


def test_times_of_batches_are_found_again(tmp_path: Path) -> None:
    BackendCache(tmp_path).keep_batch_times("key", TIMES)
    assert BackendCache(tmp_path).batch_times("key", 256) == TIMES
    assert BackendCache(tmp_path).batch_times("other", 256) is None
    BackendCache(tmp_path).keep_batch_times("key", {1: 0.5})
    assert BackendCache(tmp_path).batch_times("key", 256) == {1: 0.5}
    assert BackendCache(None).batch_times("key", 256) is None


def test_times_of_larger_batches_than_there_can_be_are_none(tmp_path: Path) -> None:
    BackendCache(tmp_path).keep_batch_times("key", TIMES)
    assert BackendCache(tmp_path).batch_times("key", 16) == TIMES
    assert BackendCache(tmp_path).batch_times("key", 8) is None


@pytest.mark.parametrize(
    "seconds",
    [
        *("", "{", "[]", "3", "null", "[" * 100_000, "\x00\xff", '{"1": 0.01}'),
        *('{"seconds": []}', '{"seconds": {}}', '{"seconds": null}', '{"seconds": 0.5}'),
        *(
            f'{{"seconds": {{{table}}}}}'
            for table in (
                *('"1": 0', '"1": 0.0', '"1": -0.1', '"1": 1', '"1": true', '"1": null'),
                *('"1": "0.01"', '"1": NaN', '"1": Infinity', '"1": -Infinity', '"1": 1e9'),
                *('"2": 0.01', '"0": 0.01, "1": 0.01', '"1": 0.01, "-2": 0.01'),
                *('"1": 0.01, "two": 0.01', '"1": 0.01, "1.5": 0.01', '"1": 0.01, "257": 0.01'),
                *('"1": 0.01, "": 0.01', '"1": 0.01, "²": 0.01', '"1": 0.01, "01": 0.02'),
                '"1": 0.01, "' + "9" * 5000 + '": 0.01',
            )
        ),
    ],
    ids=range(33),
)
def test_broken_times_are_none(seconds: str, tmp_path: Path) -> None:
    cache = BackendCache(tmp_path)
    cache.keep_batch_times("key", TIMES)
    (path,) = tmp_path.iterdir()
    path.write_text(seconds, encoding="latin-1")
    assert cache.batch_times("key", 256) is None


def test_a_folder_that_the_kubelet_opened_to_a_group_is_closed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "imagesafety"
    kept(BackendCache(folder), b"model")
    BackendCache(folder).keep_choice("key", "tower", {})
    for path in (folder, *folder.iterdir()):  # as it does with a volume that has fsGroup
        path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o660))
    cache = BackendCache(folder)
    assert cache.model(NAME) is not None
    assert cache.choice("key") == "tower"
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert (cache.refused, caplog.text) == ("", "")


def test_a_folder_that_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "can be written by others" in BackendCache(tmp_path).refused


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 100_000, '{"chosen": 3}', "{}", "\x00\xff"], ids=range(7)
)
def test_a_broken_choice_is_none(content: str, tmp_path: Path) -> None:
    cache = BackendCache(tmp_path)
    cache.keep_choice("key", "tower", {})
    (path,) = tmp_path.iterdir()
    path.write_text(content, encoding="latin-1")
    assert cache.choice("key") is None


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cache = BackendCache(tmp_path / "file" / "folder")
    assert caplog.records[0].levelno == logging.WARNING
    kept(cache, b"model")
    cache.keep_choice("key", "tower", {})
    cache.keep_batch_times("key", TIMES)
    assert (cache.model(NAME), cache.choice("key"), cache.begin("key")) == (None, None, True)
    assert cache.batch_times("key", 256) is None


def test_a_choice_that_kills_the_process_is_not_begun_for_ever(tmp_path: Path) -> None:
    for _ in range(2):
        assert BackendCache(tmp_path).begin("key")
    assert not BackendCache(tmp_path).begin("key")
    assert BackendCache(tmp_path).begin("other")


def test_one_that_comes_to_its_end_may_begin_again(tmp_path: Path) -> None:
    for _ in range(4):
        cache = BackendCache(tmp_path)
        assert cache.begin("key")
        cache.end("key")


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "imagesafety"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/to/be/ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_folder() == tmp_path / "home" / ".cache" / "imagesafety"
