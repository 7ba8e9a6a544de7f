"""The measurement before the first upload, with an encoder that moves the clock."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from inference import warm_up
from inference.backends.cache import BackendCache
from inference.encoder import Embeddings
from inference.warm_up import Batches, KeptTimes, warmed_up


class Clock:
    """Time that passes only where somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


class FakeEncoder:
    """Takes `seconds(size)` for a batch, and `first` seconds more for the first of a size."""

    def __init__(self, clock: Clock, seconds: Callable[[int], float], first: float = 0.0) -> None:
        self.passes: list[int] = []
        self.pictures: set[int] = set()
        self._clock, self._seconds, self._first = clock, seconds, first

    async def __call__(self, pictures: Sequence[bytes]) -> Embeddings:
        size = len(pictures)
        self._clock.now += self._seconds(size) + (0 if size in self.passes else self._first)
        self.passes.append(size)
        self.pictures |= {len(picture) for picture in pictures}
        return np.ones((size, 2), np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(warm_up, "time", fake)
    return fake


def measure(encoder: FakeEncoder, max_batch: int | None) -> dict[int, float]:
    measured = asyncio.run(warm_up.measure_batches(Batches(encoder, 12, max_batch)))
    assert encoder.pictures == {12}
    return measured


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])]
)
def test_the_sizes_up_to_what_is_configured(clock: Clock, max_batch: int, sizes: list[int]) -> None:
    measured = measure(FakeEncoder(clock, lambda size: 0.01 * size), max_batch)
    assert measured == pytest.approx({size: 0.01 * size for size in sizes})


def test_what_happens_only_the_first_time_is_not_measured(clock: Clock) -> None:
    measured = measure(FakeEncoder(clock, lambda size: 0.01, first=0.3), 4)
    assert measured == pytest.approx({1: 0.01, 2: 0.01, 4: 0.01})


def test_one_pass_that_was_disturbed_does_not_count(clock: Clock) -> None:
    encoder = FakeEncoder(clock, lambda size: 5.0 if len(encoder.passes) == 2 else 0.01)
    assert measure(encoder, 1) == pytest.approx({1: 0.01})


def test_auto_goes_on_while_it_pays(clock: Clock) -> None:
    measured = measure(FakeEncoder(clock, lambda size: 0.1 + 0.001 * size), None)
    assert sorted(measured) == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_auto_stops_where_larger_batches_are_no_faster(clock: Clock) -> None:
    measured = measure(FakeEncoder(clock, lambda size: 0.004 * max(size, 4)), None)
    assert sorted(measured) == [1, 2, 4, 8, 16]


def test_auto_tries_no_batch_that_would_keep_others_waiting_long(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_up, "_SECONDS", 100.0)
    measured = measure(FakeEncoder(clock, lambda size: 0.4 + 0.02 * size), None)
    assert max(measured.values()) <= 1.0
    assert sorted(measured) == [1, 2, 4, 8]  # 16 may take twice 0.56 s


def test_what_is_left_when_the_time_is_up_is_estimated(clock: Clock) -> None:
    encoder = FakeEncoder(clock, lambda size: 3.0 * size)
    measured = measure(encoder, 256)
    assert 1 in measured
    assert sorted(measured) == [1, 2, 4][: len(measured)]
    assert clock.now < 1000 + 60


def test_a_device_without_a_measurable_time(clock: Clock) -> None:
    assert measure(FakeEncoder(clock, lambda size: 0.0), 4) == {1: 0, 2: 0, 4: 0}
    assert set(measure(FakeEncoder(clock, lambda size: 0.0), None).values()) == {0.0}


def test_what_the_encoder_raises_is_raised() -> None:
    async def encode(pictures: Sequence[bytes]) -> Embeddings:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        asyncio.run(warm_up.measure_batches(Batches(encode, 12, None)))


def test_batches_that_overlap_are_measured_from_end_to_end() -> None:
    in_step = [[0.0, 1.0, 3.0, 5.0, 7.0], [0.0, 2.0, 4.0, 6.0, 8.0]]
    assert warm_up.seconds_between(in_step) == pytest.approx(1.0)
    together = [[0.0, 1.0, 3.0, 5.0], [0.0, 1.0, 3.0, 5.0]]
    assert warm_up.seconds_between(together) == pytest.approx(1.0)
    assert warm_up.seconds_between([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) == 0.0


TIMES = {1: 0.01, 2: 0.015, 4: 0.03}


def started(encoder: FakeEncoder, folder: Path, key: str = "key") -> dict[int, float] | None:
    batches = Batches(encoder, 12, None)
    return asyncio.run(warmed_up(batches, KeptTimes(BackendCache(folder), batches, key)))


def keep(folder: Path, times: dict[int, float], key: str = "key", overlap: int = 1) -> None:
    async def encode(pictures: Sequence[bytes]) -> Embeddings:
        raise AssertionError

    KeptTimes(BackendCache(folder), Batches(encode, 12, None, overlap), key).keep(times)


def test_kept_times_are_used_at_once(clock: Clock, tmp_path: Path) -> None:
    encoder = FakeEncoder(clock, lambda size: 0.01 * size, first=0.3)
    assert started(encoder, tmp_path) is None
    assert encoder.passes == [1], "so that the first upload does not pay for what happens once"
    keep(tmp_path, TIMES)
    encoder.passes.clear()
    assert started(encoder, tmp_path) == TIMES
    assert encoder.passes == [1, 1]


@pytest.mark.parametrize(("key", "overlap"), [("other", 1), ("key", 2)])
def test_those_of_other_batches_are_not(
    key: str, overlap: int, clock: Clock, tmp_path: Path
) -> None:
    keep(tmp_path, TIMES, key, overlap)
    assert started(FakeEncoder(clock, lambda size: 0.01 * size), tmp_path) is None


def test_an_encoder_that_is_not_known_has_none(clock: Clock, tmp_path: Path) -> None:
    keep(tmp_path, TIMES, "")
    assert not list(tmp_path.iterdir())
    assert started(FakeEncoder(clock, lambda size: 0.01 * size), tmp_path, "") is None


@pytest.mark.parametrize(("seconds", "believed"), [(0.0001, False), (0.005, True), (5.0, True)])
def test_times_under_which_all_would_be_refused_are_not_believed(
    seconds: float, believed: bool, clock: Clock, tmp_path: Path
) -> None:
    """Those that are too short are: each batch corrects them."""
    keep(tmp_path, TIMES)
    encoder = FakeEncoder(clock, lambda size: seconds * size)
    assert started(encoder, tmp_path) == (TIMES if believed else None)
