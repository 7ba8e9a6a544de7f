"""Scoring of material against a replica that does as it is told: once each, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest

from imagesafety.evaluation.material import LabelledFile, Labels, MaterialError
from imagesafety.evaluation.read_ahead import ReadFile, read_ahead
from imagesafety.evaluation.score_cache import ScoreCache
from imagesafety.evaluation.scored import OtherModelError, ScoredFile, score_material
from imagesafety.policy import Policy
from imagesafety.policy_file import parse_policy
from imagesafety.service_address import ServiceAddress
from tests.e2e.scripted_inference import MODEL
from tests.scripted_bulk import (
    LIMITS,
    Context,
    Replica,
    Response,
    error,
    first,
    replica,
    score,
    scores,
)

CODES = grpc.StatusCode


def policy(model: str = MODEL.name, prompt: str = "red") -> Policy:
    return parse_policy(
        f"""
        model = "{model}"
        concepts.red = ["{prompt}"]
        groups.red.thresholds.red = 0.5
        [[rules]]
        name = "red"
        all = ["red"]
        """
    )


class Bar:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, n: int = 1) -> None:
        self.done += n

    def note(self, text: str) -> None:
        pass


def written(folder: Path, contents: Iterable[bytes]) -> list[LabelledFile]:
    files = []
    for number, data in enumerate(contents):
        path = folder / f"{number}.png"
        path.write_bytes(data)
        files.append(LabelledFile(path, Labels(number % 2 == 0)))
    return files


async def scored(
    folder: Path, target: str, files: Iterable[LabelledFile], asked: Policy | None = None
) -> list[ScoredFile]:
    bar = Bar()
    with ScoreCache(folder / "scores.sqlite3") as cache:
        async with asyncio.timeout(60):
            scoring = score_material(
                files, asked or policy(), ServiceAddress(target), cache, bar=bar
            )
            found = [result async for result in scoring]
    assert bar.done == len(found)
    return sorted(found, key=lambda result: result.file.path)


def tops(found: list[ScoredFile]) -> dict[str, float]:
    return {
        result.file.path.name: float(result.similarities.max())
        for result in found
        if result.similarities is not None
    }


async def test_every_file_has_its_scores_and_the_next_run_asks_for_none(tmp_path: Path) -> None:
    files = written(tmp_path, (b"%d" % number for number in range(300)))
    async with replica(score) as (target, service, _):
        expected = {f"{number}.png": float(number) for number in range(300)}
        assert tops(await scored(tmp_path, target, files)) == expected
        assert tops(await scored(tmp_path, target, files)) == expected
        assert set(service.came.values()) == {1}
        others = await scored(tmp_path, target, files[:5], policy(prompt="something red"))
        assert len(others) == 5
        assert service.came.total() == 305


async def test_the_same_bytes_are_scored_once(tmp_path: Path) -> None:
    files = written(tmp_path, [b"7", b"7", b"8"] * 50)
    async with replica(score) as (target, service, _):
        found = await scored(tmp_path, target, files)
        assert service.came == {b"7": 1, b"8": 1}
    assert len(found) == 150
    assert [result.file for result in found] == sorted(files, key=lambda file: file.path)
    assert len({result.sha256 for result in found}) == 2


async def test_what_has_no_scores_is_asked_for_again(tmp_path: Path) -> None:
    answers = {
        b"broken": error(CODES.INVALID_ARGUMENT, "UNDECODABLE"),
        b"huge": error(CODES.RESOURCE_EXHAUSTED, "TOO_MANY_PIXELS"),
        b"slow": error(CODES.INVALID_ARGUMENT, "DECODER_TIMEOUT"),
        b"part": scores(0.5, "QUEUE_FULL"),
    }

    async def behaviour(service: Replica, data: bytes, context: Context) -> Response:
        answer = Response()
        answer.CopyFrom(answers[data])
        return answer

    files = written(tmp_path, answers)
    async with replica(behaviour) as (target, service, _):
        found = await scored(tmp_path, target, files)
        reasons = [result.error.reason if result.error else "" for result in found]
        assert reasons == ["UNDECODABLE", "TOO_MANY_PIXELS", "DECODER_TIMEOUT", ""]
        assert found[0].problem == "UNDECODABLE (UNDECODABLE)"
        assert found[3].partial == "QUEUE_FULL"
        before = dict(service.came)
        assert len(await scored(tmp_path, target, files)) == 4
        again = {data for data in answers if service.came[data] > before[data]}
        assert again == set(answers)


async def test_trouble_that_passes_is_waited_out(tmp_path: Path) -> None:
    files = written(tmp_path, [b"1", b"2"])
    async with replica(first(1, error(CODES.RESOURCE_EXHAUSTED, "QUEUE_FULL"))) as (target, _, _):
        assert tops(await scored(tmp_path, target, files)) == {"0.png": 1, "1.png": 2}


async def test_what_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    [sound] = written(tmp_path, [b"1"])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(LIMITS.max_image_bytes + 1))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = ("pipe", "large", "loop", "nowhere", "folder")
    (tmp_path / "folder").mkdir()
    files = [sound, *(LabelledFile(tmp_path / name, Labels()) for name in names)]
    async with replica(score) as (target, service, _):
        found = {f.file.path.name: f for f in await scored(tmp_path, target, files)}
        assert service.came == {b"1": 1}
    assert found["pipe"].problem == found["folder"].problem == "not a regular file"
    assert "No such file" in found["nowhere"].problem
    assert found["loop"].problem
    assert found["large"].error is not None
    assert found["large"].error.reason == "TOO_MANY_BYTES"
    assert [name for name in found if found[name].similarities is not None] == ["0.png"]


async def test_another_model_is_never_judged(tmp_path: Path) -> None:
    files = written(tmp_path, [b"1"])
    async with replica(score) as (target, service, _):
        with pytest.raises(OtherModelError, match="the policy is for model other, inference has"):
            await scored(tmp_path, target, files, policy("other"))
        assert not service.came


async def test_a_replica_that_changes_its_model_ends_the_run(tmp_path: Path) -> None:
    async def changed(service: Replica, data: bytes, context: Context) -> Response:
        answer = scores(0.5)
        answer.scores.model.weights_digest = "sha256:others"
        return answer

    async with replica(changed) as (target, _, _):
        with pytest.raises(OtherModelError, match="a replica has"):
            await scored(tmp_path, target, written(tmp_path, [b"1"]))


async def test_a_source_that_breaks_off_keeps_what_was_scored(tmp_path: Path) -> None:
    files = written(tmp_path, (b"%d" % number for number in range(100)))

    def source() -> Iterable[LabelledFile]:
        yield from files
        raise MaterialError("line 101: nonsense")

    async with replica(score) as (target, service, _):
        with pytest.raises(MaterialError, match="line 101"):
            await scored(tmp_path, target, source())
        assert service.came.total() == 100
        assert len(await scored(tmp_path, target, files)) == 100
        assert set(service.came.values()) == {1}


async def test_a_cancelled_run_keeps_what_was_scored(tmp_path: Path) -> None:
    files = written(tmp_path, (b"%d" % number for number in range(500)))
    async with replica(score) as (target, service, _):
        with ScoreCache(tmp_path / "scores.sqlite3") as cache:
            scoring = score_material(files, policy(), ServiceAddress(target), cache, bar=Bar())
            taken = []
            async for result in scoring:
                taken.append(result.sha256)
                if len(taken) == 20:
                    break
            await scoring.aclose()
        before = dict(service.came)
        assert len(await scored(tmp_path, target, files)) == 500
        twice = sum(count > 1 for count in service.came.values())
        assert twice <= len(before) - 20


async def test_reading_is_no_further_ahead_than_it_has_to_be(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes(1024 * 1024))
    taken = 0

    def source() -> Iterable[LabelledFile]:
        nonlocal taken
        while True:
            taken += 1
            yield LabelledFile(file, Labels())

    reading = read_ahead(source(), 1024 * 1024)
    found: list[ReadFile] = []
    async for read in reading:
        found.append(read)
        if len(found) == 50:
            break
    await reading.aclose()
    assert taken - len(found) <= 6 * 5  # a thread's megabytes, four threads and one to spare
