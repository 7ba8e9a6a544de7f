"""The cache gives back what was put into it, to those whose scores they are, after any ending."""

import hashlib
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from imagesafety.evaluation.cached_scores import CachedScores, FileError, ViewPlace
from imagesafety.evaluation.score_cache import CacheError, CacheSection, ScoreCache, default_cache

A, B = (hashlib.sha256(name).digest() for name in (b"a", b"b"))
SCORES = CachedScores(
    similarities=np.array([[0.1, -0.2], [0.3, 0.4]], np.float32),
    embeddings=np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    places=(ViewPlace(), ViewPlace(3, 1.5, (1, 2, 30, 40), "white")),
    media_type="image/gif",
    partial="broken at the end",
    backend="test",
)
ERROR = CachedScores(error=FileError("UNDECODABLE", "not a picture"))


def same(one: CachedScores | None, other: CachedScores) -> bool:
    return one is not None and all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        if field.name in ("similarities", "embeddings")
        else getattr(one, field.name) == getattr(other, field.name)
        for field in fields(CachedScores)
    )


def section(cache: ScoreCache, model: str = "m", *, embeddings: bool = False) -> CacheSection:
    return cache.section(model, "sha256:1", "options", embeddings=embeddings)


def test_what_was_put_in_comes_out(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "new" / "scores") as cache:
        first = section(cache, embeddings=True)
        first.put(A, SCORES)
        first.put(B, ERROR)
        assert same(first.get(A), SCORES)  # also before it is written
        first.flush()
        assert same(first.get(A), SCORES)
    with ScoreCache(tmp_path / "new" / "scores") as cache:
        again = section(cache, embeddings=True)
        assert same(again.get(A), SCORES)
        assert same(again.get(B), ERROR)
        assert again.get(bytes(32)) is None


def test_scores_are_only_for_whom_they_were_made(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores") as cache:
        one = section(cache)
        one.put(A, SCORES)
        one.flush()
        others = [
            cache.section("other", "sha256:1", "options"),
            cache.section("m", "sha256:2", "options"),
            cache.section("m", "sha256:1", "others"),
            section(cache, embeddings=True),  # it has none
        ]
        assert [other.get(A) for other in others] == [None] * 4
        with_embeddings = section(cache, embeddings=True)
        with_embeddings.put(B, SCORES)
        with_embeddings.flush()
        assert same(section(cache).get(B), SCORES)


def test_it_says_when_to_write(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores") as cache:
        full = [section(cache).put(bytes([n % 256, n // 256]) * 16, ERROR) for n in range(3)]
        assert full == [False] * 3
        many = section(cache)
        assert any(many.put(bytes([n % 256, n // 256]) * 16, ERROR) for n in range(300))


def test_a_killed_process_leaves_what_it_has_flushed(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from tests.evaluation.test_score_cache import *
one = section(ScoreCache(Path(sys.argv[1])))
one.put(A, ERROR)
one.flush()
one.put(B, ERROR)
os.kill(os.getpid(), signal.SIGKILL)
"""
    file = tmp_path / "scores"
    assert subprocess.run([sys.executable, "-c", code, str(file)]).returncode == -9
    with ScoreCache(file) as cache:
        assert same(section(cache).get(A), ERROR)
        assert section(cache).get(B) is None


def test_two_at_once(tmp_path: Path) -> None:
    with ScoreCache(tmp_path / "scores") as one, ScoreCache(tmp_path / "scores") as other:
        first, second = section(one), section(other)
        first.put(A, ERROR)
        second.put(A, SCORES)
        second.put(B, SCORES)
        first.flush()
        second.flush()
        assert first.get(B) is not None


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database" * 1000)
    with pytest.raises(CacheError, match="text: no score cache"):
        ScoreCache(text)
    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(CacheError, match="another version"):
        ScoreCache(newer)
    with pytest.raises(CacheError, match="can't be opened"):
        ScoreCache(text / "below a file")
    with pytest.raises(CacheError, match="can't be opened"):
        ScoreCache(tmp_path)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/imagesafety/scores.sqlite3")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_cache() == Path("/home/me/.cache/imagesafety/scores.sqlite3")
