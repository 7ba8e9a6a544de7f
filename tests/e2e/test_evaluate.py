"""`imagesafety evaluate` with the real service on drawn pictures.

`EVALUATE_PICTURES=5000 .venv/bin/python -m pytest tests/e2e/test_evaluate.py` draws so many
harmless pictures and a tenth as many of the rejected kind; by itself, the test draws 400.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from imagesafety.client import ConceptSet, ScoringClient
from imagesafety.policy_file import load_policy
from imagesafety.verdict import judge_image
from inference.demo.material import draw_all
from tests.e2e.conftest import Pair
from tests.e2e.processes import free_port
from tests.scripted_bulk import Context, Replica, Response, never, replica, score

ROOT = Path(__file__).parents[2]
ACCEPT = int(os.environ.get("EVALUATE_PICTURES", "400"))
REJECT = ACCEPT // 10


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagesafety.command", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT)


@dataclass(frozen=True)
class Drawn:
    folder: Path
    policy: Path
    cache: Path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Material, and a policy that makes mistakes on it: the demo's own makes hardly any."""
    folder = tmp_path_factory.mktemp("material")
    draw_all(folder / "material", ACCEPT, REJECT, seed=1, size=96)
    policy = folder / "strict.toml"
    text = (ROOT / "policies" / "demo.toml").read_text()
    text = text.replace("red = 0.107", "red = -0.02").replace("triangle = 0.107", "triangle = 0.2")
    policy.write_text(text)
    return Drawn(folder, policy, folder / "scores.sqlite3")


async def similarities(drawn: Drawn, target: str, paths: list[str]) -> np.ndarray:
    """The similarities of pictures with one view, each asked for by a call of its own."""
    policy = load_policy(drawn.policy)
    concepts, room = ConceptSet(policy.concepts), asyncio.Semaphore(8)

    async with ScoringClient(target) as client:

        async def one(path: str) -> list[float]:
            async def chunks() -> AsyncIterator[bytes]:
                yield await asyncio.to_thread((drawn.folder / "material" / path).read_bytes)

            async with room:
                scores = await client.score_image(chunks(), concepts=concepts, timeout=60)
                [view] = scores.views
                return list(view.similarities)

        return np.array(await asyncio.gather(*map(one, paths)), np.float32)


async def test_figures_are_those_of_scikit_learn(pair: Pair, drawn: Drawn, tmp_path: Path) -> None:
    ended = await asyncio.to_thread(
        evaluate,
        *(
            drawn.folder / "material" / "labels.csv",
            "--policy",
            drawn.policy,
            "--inference",
            pair.inference,
        ),
        *("--cache", drawn.cache, "--report", tmp_path, "--json"),
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    with (drawn.folder / "material" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = await similarities(drawn, pair.inference, [row["path"] for row in rows])
    policy = load_policy(drawn.policy)
    rejected_kind = np.array([row["label"] == "reject" for row in rows])

    names = [concept.name for concept in policy.concepts]
    assert len(found["concepts"]) == 2 * len(names)
    for figures in found["concepts"]:
        name = figures["concept"]
        truth = (
            rejected_kind
            if figures["basis"] == "decision"
            else np.array([row[name] == "true" for row in rows])
        )
        column = scores[:, names.index(name)]
        assert figures["auc"] == pytest.approx(metrics.roc_auc_score(truth, column), abs=1e-4)
        expected = metrics.average_precision_score(truth, column)
        assert figures["average_precision"] == pytest.approx(expected, abs=1e-3)
        for row in figures["thresholds"]:
            if row["threshold"] is not None:
                assert row["false_rejects"]["share"] <= row["false_reject_rate"]
                recall = metrics.recall_score(truth, column >= np.float64(row["threshold"]))
                assert row["recall"]["share"] == pytest.approx(recall, abs=2 / truth.sum())

    rejected = np.array([judge_image(policy, [row]).rejects for row in scores.tolist()])
    (_, false_rejects), (false_accepts, _) = metrics.confusion_matrix(rejected_kind, rejected)
    # Batches of other sizes compute other last digits: one image may be on the other side.
    rates = found["rates"]
    assert rates["false_rejects"]["count"] == pytest.approx(false_rejects, abs=1)
    assert rates["false_accepts"]["count"] == pytest.approx(false_accepts, abs=1)
    assert false_rejects > 0
    count = rates["false_rejects"]["count"]
    exact = stats.binomtest(count, ACCEPT).proportion_ci(0.95, "exact")
    assert rates["false_rejects"]["interval"] == pytest.approx([exact.low, exact.high])
    [rule] = found["rules"]
    assert (rule["wrong"], rule["right"]) == (count, REJECT - rates["false_accepts"]["count"])
    worst = found["mistakes"]["false_rejects"]
    assert [item["margin"] for item in worst] == sorted((m["margin"] for m in worst), reverse=True)
    names = os.listdir(tmp_path)  # noqa: PTH208 - names are all that is wanted
    assert sorted(names) == ["report.html", "report.json"]


def test_folders_are_labels_as_well(pair: Pair, drawn: Drawn) -> None:
    arguments = ("--inference", pair.inference, "--cache", drawn.cache)
    ended = evaluate(drawn.folder / "material", "--policy", "demo", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert f"  {ACCEPT} to accept, {REJECT} to reject" in ended.stdout
    assert re.search(rf"false rejects  .* of {ACCEPT};", ended.stdout)
    assert "too few negatives to say" in ended.stdout


def test_broken_files_are_told_and_left_out(pair: Pair, drawn: Drawn, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "examples", source / "accept")
    (source / "accept" / "text.jpg").write_text("no picture")
    (source / "accept" / "gone.jpg").symlink_to("/nowhere")
    (source / "reject").mkdir()
    shutil.copy(ROOT / "examples" / "red-triangle.png", source / "reject" / "again.png")
    arguments = ("--policy", "demo", "--inference", pair.inference, "--cache", drawn.cache)
    ended = evaluate(source, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "text.jpg: the bytes are no media type that is scanned" in ended.stdout
    assert "gone.jpg: cannot be read: No such file or directory" in ended.stdout
    assert "1: the same bytes have labels that contradict each other" in ended.stdout
    assert "Traceback" not in ended.stderr
    for path in (source / "accept").iterdir():
        if path.name != "text.jpg":
            path.unlink()
    shutil.rmtree(source / "reject")
    ended = evaluate(source, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.endswith("imagesafety: no image could be scored\n")


def test_what_cannot_be_meant(pair: Pair, drawn: Drawn, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.png,accept\nb.png,perhaps\n")
    other = tmp_path / "other.toml"
    other.write_text(drawn.policy.read_text().replace('"demo"', '"ViT-B-32/openai"'))
    material, service = drawn.folder / "material", ("--inference", pair.inference)
    nobody = ("--inference", f"127.0.0.1:{free_port()}")
    policy, cache = ("--policy", "demo"), ("--cache", drawn.cache)
    for code, says, arguments in (
        (2, "labels.csv, line 3: label must be", (table, *policy, *service, *cache)),
        (2, "there is no such folder or file", (tmp_path / "x", *policy, *nobody)),
        (2, "no such policy file", (material, "--policy", "none", *service)),
        (2, "--pictures needs --report", (material, *policy, *service, "--pictures")),
        (2, "is not between 0 and 1", (material, *policy, "--prevalence", "1")),
        (2, "overrides", (material, *policy, *service, "--overrides", tmp_path / "overrides")),
        (
            1,
            "the policy is for model ViT-B-32/openai",
            (material, "--policy", other, *service, *cache),
        ),
        (1, "no score cache", (material, *policy, *service, "--cache", table)),
        (1, "`imagesafety up` starts it", (material, *policy, *nobody, *cache)),
    ):
        ended = evaluate(*arguments)
        assert (ended.returncode, says in ended.stderr) == (code, True), ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""


@dataclass
class Run:
    """The command, running beside the test's own event loop."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, source: Path, policy: Path, target: str, cache: Path) -> Run:
        command = [sys.executable, "-m", "imagesafety.command", "evaluate", str(source)]
        command += ["--policy", str(policy), "--inference", target, "--cache", str(cache)]
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=ROOT)
        )

    async def end(self) -> tuple[int | None, str, str]:
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        return self.process.returncode, out.decode(), err.decode()


FILES, SCORED = 1000, 700


def numbered(folder: Path) -> tuple[Path, Path]:
    """Files that a scripted replica scores, and a policy of one concept for it."""
    for number in range(FILES):
        path = folder / "source" / ("accept" if number % 2 else "reject") / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    policy = folder / "policy.toml"
    policy.write_text(
        """
        model = "demo"
        concepts.red = ["red"]
        groups.red.thresholds.red = 0.5
        [[rules]]
        name = "red"
        all = ["red"]
        """
    )
    return folder / "source", policy


async def stops(service: Replica, data: bytes, context: Context) -> Response:
    """Answers so many images, and no more."""
    if service.came.total() > SCORED:
        return await never(service, data, context)
    return await score(service, data, context)


def cached(cache: Path) -> int:
    if not cache.exists():
        return 0
    with contextlib.closing(sqlite3.connect(cache)) as database:
        try:
            [(count,)] = database.execute("SELECT count(*) FROM scores")
        except sqlite3.OperationalError:  # the table is not there yet
            return 0
    return int(count)


async def resumed(source: Path, policy: Path, cache: Path) -> int:
    """How many images a further run has to ask for; it ends well."""
    async with replica(score) as (target, service, _):
        run = await Run.start(source, policy, target, cache)
        code, out, err = await run.end()
        assert code == 0, err
        assert f"{FILES} files, {FILES} different images" in out
        assert max(service.came.values(), default=1) == 1
        return service.came.total()


async def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    source, policy = numbered(tmp_path)
    cache = tmp_path / "cache" / "scores"
    async with replica(stops) as (target, _, _):
        run = await Run.start(source, policy, target, cache)
        async with asyncio.timeout(60):
            while cached(cache) < SCORED // 2:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.05)
        run.process.kill()
        await run.end()
    kept = cached(cache)
    assert SCORED // 2 <= kept <= SCORED
    assert await resumed(source, policy, cache) == FILES - kept
    assert await resumed(source, policy, cache) == 0
    # A killed run leaves nothing behind but the cache.
    assert {path.name.partition("-")[0] for path in cache.parent.iterdir()} == {"scores"}


async def test_an_interrupted_run_ends_quietly_and_keeps_everything(tmp_path: Path) -> None:
    source, policy = numbered(tmp_path)
    cache = tmp_path / "scores"
    async with replica(stops) as (target, _, _):
        run = await Run.start(source, policy, target, cache)
        async with asyncio.timeout(60):
            while cached(cache) < SCORED // 2:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.05)
        run.process.send_signal(signal.SIGINT)
        code, out, err = await run.end()
        assert (code, out) == (130, "")
        assert "Traceback" not in err
        assert "scoring: " in err
    kept = cached(cache)
    assert SCORED // 2 <= kept <= SCORED
    assert await resumed(source, policy, cache) == FILES - kept
