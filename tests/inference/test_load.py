"""What a replica reports of its load, over a window of two seconds."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.load import BusyTime, Load, LoadReport


def test_the_busy_part_of_the_window() -> None:
    busy = BusyTime(2.0)
    assert busy.mean(0.0) == 0
    busy.set(1.0, 10.0)
    assert busy.mean(10.5) == pytest.approx(0.25)
    busy.set(0.0, 11.0)
    assert busy.mean(11.0) == pytest.approx(0.5)
    assert busy.mean(12.5) == pytest.approx(0.25)
    assert busy.mean(100.0) == 0
    busy.set(0.5, 100.0)
    assert busy.mean(1000.0) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), max_size=20), st.floats(0, 5))
def test_the_busy_part_is_that_of_the_definition(
    changes: list[tuple[float, float]], later: float
) -> None:
    busy, now = BusyTime(2.0), 0.0
    steps = []
    for wait, level in changes:
        now += wait
        steps.append((now, level))
        busy.set(level, now)
    now += later
    ends = [at for at, _ in steps[1:]] + [now] * bool(steps)
    area = sum(
        level * max(0.0, end - max(at, now - 2.0))
        for (at, level), end in zip(steps, ends, strict=True)
    )
    assert busy.mean(now) == pytest.approx(area / 2.0, abs=1e-9)


def test_what_is_answered_and_refused_is_counted_for_two_seconds() -> None:
    load = Load()
    load.device.set(1.0, 0.0)
    for number in range(40):
        load.answered(number / 10, refused=number % 4 == 0)
    load.device.set(0.0, 4.0)
    report = load.report(4.0, waiting_seconds=0.5)
    assert report == LoadReport(1.5, scored=7.5, refused=2.0, busy=1.0, waiting_seconds=0.5)


def test_who_had_nothing_to_answer_knows_nothing_of_its_load() -> None:
    load = Load()
    assert load.report(0.0, 0.0) == LoadReport(0.0, 0.0, 0.0, 0.0, 0.0)
    load.answered(1.0)
    assert load.report(1.0, 0.0).scored > 0
    assert load.report(3.5, 0.0) == LoadReport(0.0, 0.0, 0.0, 0.0, 0.0)


def test_who_could_have_answered_and_did_not_is_given_few_calls() -> None:
    """Also before the first calls' deadlines, and not while the only call has just come."""
    load, good = Load(), Load()
    load.device.set(1.0, 0.0)
    with contextlib.ExitStack() as calls:
        calls.enter_context(load.scoring(0.0))
        assert load.report(1.0, 0.5).scored == 0
        for number in range(1, 30):
            calls.enter_context(load.scoring(number / 10))
        report = load.report(3.0, 2.0)
        assert report.utilisation == 3.0
        assert report.refused == pytest.approx(9.5)
        for number in range(30):
            good.answered(number / 10)
        assert weight(report) < 0.001 * weight(good.report(3.0, 0.5))
        load.answered(3.0)
        assert load.report(3.1, 2.0).scored > 0.1
    assert load.report(9.0, 0.0) == LoadReport(0.0, 0.0, 0.0, 1.0, 0.0)


def test_what_keeps_neither_device_nor_decoders_busy_counts_as_much_as_if_it_did() -> None:
    load = Load()
    with load.scoring(0.0):
        assert weight(load.report(5.0, 0.0)) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("deadline", "now", "refused"),
    [(8.0, 7.9, 0.5), (8.0, 8.1, 0.5), (8.0, 4.0, 0.0), (math.inf, 1e6, 0.0), (1.0, 1.0, 0.5)],
)
def test_whose_time_has_run_out_was_refused_and_who_hangs_up_was_not(
    deadline: float, now: float, refused: float
) -> None:
    load = Load()
    load.given_up(1.0, deadline, now)
    assert load.report(now, 0.0).refused == refused


def weight(report: LoadReport) -> float:
    """As gRPC's weighted_round_robin reckons (gRFC A58), with a penalty of 1."""
    return report.scored / (report.utilisation + report.refused / report.scored)


def test_who_refuses_quickly_is_given_less_than_who_answers() -> None:
    good, full = Load(), Load()
    for load in (good, full):
        load.device.set(1.0, 0.0)
    for number in range(200):
        good.answered(number / 100)
        full.answered(number / 100, refused=True)
        full.answered(number / 100, refused=True)
    assert weight(full.report(2.0, 1.0)) < 0.01 * weight(good.report(2.0, 0.1))


def test_the_busier_of_device_and_decoders_counts() -> None:
    load = Load()
    load.device.set(0.25, 0.0)
    load.decoders.set(0.75, 0.0)
    load.answered(2.0)
    assert load.report(2.0, 0.0).utilisation == pytest.approx(0.75)
