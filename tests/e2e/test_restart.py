"""An inference service that dies knows at its next start what it had measured."""

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.calls import RED, Caller
from tests.e2e.processes import Service, free_port, is_serving, running, wait_until
from tests.media import drawn, still

BAD = still(drawn(("red", "triangle"), size=100))
KNOWN = "times of batches are those of an earlier start"
MEASURED = "images a second by batch: "


@contextlib.contextmanager
def started(cache: Path, *flags: str) -> Iterator[Service]:
    address = f"127.0.0.1:{free_port()}"
    command = ["inference", "--listen", address, "--cache-folder", str(cache), *flags]
    with running([*command, "--backend", "pytorch"], address, lambda: is_serving(address)) as one:
        yield one


def scores(service: Service) -> bool:
    async def call() -> tuple[float, ...]:
        async with Caller(service.address) as caller:
            return (await caller.score(BAD)).similarities

    return asyncio.run(call())[0] > RED


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder after a first start that was killed."""
    cache = tmp_path_factory.mktemp("restart") / "cache"
    with started(cache) as service:
        assert scores(service)
        assert KNOWN not in service.output()
        assert MEASURED in service.output()
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
    return cache


@pytest.fixture
def cache(measured: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured, tmp_path / "cache")


def kept(cache: Path) -> Path:
    (path,) = cache.glob("times-*.json")
    return path


def test_what_was_measured_is_used_at_once(cache: Path) -> None:
    with started(cache) as service:
        assert KNOWN in service.output()
        assert MEASURED not in service.output()
        assert scores(service)


@pytest.mark.parametrize(
    "flags", [("--threads", "1"), ("--max-batch", "4"), ("--parallel-batches", "1")]
)
def test_not_with_other_settings(cache: Path, flags: tuple[str, str]) -> None:
    with started(cache, *flags) as service:
        assert KNOWN not in service.output()
        assert MEASURED in service.output()


@pytest.mark.parametrize("content", ["{", '{"seconds": {"1": "x"}}', '{"seconds": {"1": 500.0}}'])
def test_what_is_damaged_or_makes_no_sense_is_as_good_as_none(cache: Path, content: str) -> None:
    kept(cache).write_text(content)
    with started(cache) as service:
        assert KNOWN not in service.output()
        assert scores(service)
    assert json.loads(kept(cache).read_text())["seconds"]["1"] < 100.0


def test_a_noisy_measurement_is_replaced_while_nothing_is_to_be_done(cache: Path) -> None:
    """The smallest batch seems best; the running service takes what it finds out, and keeps it."""
    times = json.loads(kept(cache).read_text())["seconds"]
    kept(cache).write_text(json.dumps({"seconds": {"1": times["1"], "2": 20.0}}))
    with started(cache) as service:
        assert "batches of at most 1," in service.output()
        assert scores(service)
        again = "images a second by batch, measured again when idle"
        wait_until(lambda: again in service.output(), "measuring again")
        assert scores(service)
    assert json.loads(kept(cache).read_text())["seconds"]["2"] < 10.0


def test_a_folder_that_can_not_be_used_costs_a_measurement_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with started(tmp_path / "file" / "cache") as service:
        assert service.output().count("no cache, each start measures anew") == 1
        assert MEASURED in service.output()
        assert scores(service)
