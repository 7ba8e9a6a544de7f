"""The schedule under thousands of random schedules with a simulated clock."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batch_schedule import DeadlineUnmeetableError, Schedule, ScheduleLimits
from inference.batch_times import BatchTimes
from inference.work_queue import Priority
from tests.inference.simulation import Arrival, Record, Simulation

MANY = settings(max_examples=1500, deadline=None)
ONE_VIEW = st.builds(
    Arrival,
    at=st.floats(0, 2),
    priority=st.sampled_from(Priority),
    deadline=st.floats(0, 4) | st.just(math.inf),
    client=st.sampled_from("abc"),
)
ANY = st.builds(
    Arrival,
    at=st.floats(0, 2),
    views=st.integers(1, 12),
    priority=st.sampled_from(Priority),
    deadline=st.floats(0, 4) | st.just(math.inf),
    client=st.sampled_from("abc"),
    gone=st.floats(0, 3) | st.just(math.inf),
    poisoned=st.sampled_from([(), (), (), (), (0,), (1, 5)]),
)
LIMITS = st.builds(
    ScheduleLimits,
    max_batch=st.integers(1, 8),
    max_queue=st.integers(8, 30),
    overlap=st.integers(1, 2),
    max_delay=st.sampled_from([0.0, 0.0, 0.1]),
    weights=st.sampled_from([{}, {"a": 3.0}]),
    short_batch=st.sampled_from([0, 0, 1, 3]),
)
COSTS = st.tuples(st.floats(0, 0.2), st.floats(0.001, 0.1))


def simulate(arrivals: list[Arrival], limits: ScheduleLimits, costs: tuple[float, float]) -> Record:
    fixed, each = costs
    return Simulation(arrivals, limits, lambda size: fixed + each * size).run()


@MANY
@given(st.lists(ANY, max_size=30), LIMITS, COSTS)
def test_every_image_has_one_end_and_no_view_is_lost_or_done_twice(
    arrivals: list[Arrival], limits: ScheduleLimits, costs: tuple[float, float]
) -> None:
    record = simulate(arrivals, limits, costs)
    assert set(record.ends) == set(range(len(arrivals)))
    taken = Counter(part for batch in record.batches for part in batch.parts)
    for image, (end, _) in record.ends.items():
        arrival = arrivals[image]
        poisoned = any(view < arrival.views for view in arrival.poisoned)
        assert not (end == "done" and poisoned)
        assert not (end == "failed" and not poisoned)
        if end == "done":
            views = {view for other, view in taken if other == image}
            assert views == set(range(arrival.views))
    if not any(arrival.poisoned for arrival in arrivals):
        assert all(count == 1 for count in taken.values())


@MANY
@given(st.lists(ANY, max_size=40), LIMITS, COSTS)
def test_batches_and_the_queue_stay_within_their_bounds(
    arrivals: list[Arrival], limits: ScheduleLimits, costs: tuple[float, float]
) -> None:
    record = simulate(arrivals, limits, costs)
    assert all(1 <= len(batch.parts) <= limits.max_batch for batch in record.batches)
    assert record.most_waiting <= limits.max_queue


@MANY
@given(st.lists(ANY, max_size=30), LIMITS, COSTS)
def test_an_idle_device_never_waits_while_there_is_work(
    arrivals: list[Arrival], limits: ScheduleLimits, costs: tuple[float, float]
) -> None:
    record = simulate(arrivals, replace(limits, max_delay=0.0), costs)
    for before, after in zip(record.batches, record.batches[1:], strict=False):
        if record.done().intersection(before.waiting):
            assert after.began <= before.ended + 1e-9


@MANY
@given(st.lists(ONE_VIEW, max_size=30), LIMITS, COSTS)
def test_interactive_goes_before_bulk_and_of_one_client_the_earliest_deadline(
    arrivals: list[Arrival], limits: ScheduleLimits, costs: tuple[float, float]
) -> None:
    for batch in simulate(arrivals, limits, costs).batches:
        for image, _ in batch.parts:
            chosen = arrivals[image]
            for left in (arrivals[other] for other in batch.waiting):
                assert chosen.priority <= left.priority
                if (chosen.client, chosen.priority) == (left.client, left.priority):
                    assert chosen.deadline <= left.deadline


@MANY
@given(st.lists(ONE_VIEW, max_size=30), LIMITS, COSTS)
def test_what_is_begun_is_done_in_time(
    arrivals: list[Arrival], limits: ScheduleLimits, costs: tuple[float, float]
) -> None:
    record = simulate(arrivals, limits, costs)
    encoded = {image for batch in record.batches for image, _ in batch.parts}
    assert encoded == record.done()
    for image in encoded:
        assert record.ends[image][1] <= arrivals[image].deadline + 1e-9


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 8), COSTS, st.sampled_from([1.0, 2.0, 4.0]))
def test_clients_who_wait_get_shares_by_weight(
    max_batch: int, costs: tuple[float, float], weight: float
) -> None:
    arrivals = [Arrival(0.0, client=client) for client in "ab" for _ in range(60)]
    limits = ScheduleLimits(max_batch, max_queue=200, weights={"a": weight})
    served: Counter[str] = Counter()
    for batch in simulate(arrivals, limits, costs).batches:
        served.update(arrivals[image].client for image, _ in batch.parts)
        if max(served.values()) < 60:
            assert abs(served["a"] / weight - served["b"]) <= max_batch + 1


def test_a_flood_of_one_client_lets_another_one_s_uploads_by() -> None:
    flood = [Arrival(0.0, client="flood", deadline=50.0) for _ in range(100)]
    other = Arrival(0.5, client="other", deadline=60.0)
    limits = ScheduleLimits(max_batch=4, max_queue=200)
    record = simulate([*flood, other], limits, (0.0, 0.1))
    assert record.ends[100][1] <= 0.5 + 2 * 0.4 + 1e-9


@pytest.mark.parametrize("max_batch", [1, 2, 4, 16])
@pytest.mark.parametrize("seconds", [8.0, math.inf])
def test_a_video_does_not_hold_up_the_uploads_after_it(max_batch: int, seconds: float) -> None:
    video = Arrival(0.0, views=16, deadline=seconds)
    uploads = [Arrival(0.01 + i / 1000, deadline=seconds + 0.01 + i / 1000) for i in range(10)]
    limits = ScheduleLimits(max_batch, max_queue=200)
    record = simulate([video, *uploads], limits, (0.0, 0.02))
    assert len(record.done()) == 11
    before = sum(
        sum(image == 0 for image, _ in batch.parts)
        for batch in record.batches
        if batch.ended <= max(record.ends[i][1] for i in range(1, 11))
    )
    assert before < 2 * max_batch  # of its views: a batch, and what filled up the uploads' last one


def test_what_a_slow_device_can_not_do_in_time_is_refused_before_it_costs_anything() -> None:
    limits = ScheduleLimits(max_batch=4, max_queue=200)
    record = simulate([Arrival(0.0, views=100, deadline=8.0)], limits, (0.0, 0.1))
    assert record.ends[0] == ("late", 0.0)
    assert not record.batches


def test_bulk_work_that_waits_makes_no_upload_late() -> None:
    bulk = [Arrival(0.0, priority=Priority.BULK) for _ in range(100)]
    upload = Arrival(0.1, deadline=0.1 + 0.95)  # after the batch that runs, alone or with few
    record = simulate([*bulk, upload], ScheduleLimits(8, 200), (0.0, 0.1))
    assert record.ends[100][0] == "done"


@pytest.mark.parametrize(
    ("costs", "size"),
    [((0.0, 0.1), 1), ((0.2, 0.1), 1), ((0.4, 0.1), 2), ((1.0, 0.0), 8)],
)
def test_uploads_do_not_wait_for_bulk_work_in_their_own_batch(
    costs: tuple[float, float], size: int
) -> None:
    """Unless the batch hardly takes longer for it."""
    bulk = [Arrival(0.0, priority=Priority.BULK) for _ in range(100)]
    record = simulate([*bulk, Arrival(0.1, deadline=60.0)], ScheduleLimits(8, 200), costs)
    assert [len(batch.parts) for batch in record.batches if (100, 0) in batch.parts] == [size]
    assert all(len(batch.parts) == 8 for batch in record.batches[2:-2])


def test_an_upload_waits_for_a_short_batch_of_bulk_work_only_while_uploads_come() -> None:
    bulk = [Arrival(0.0, priority=Priority.BULK) for _ in range(400)]
    uploads = [Arrival(at, deadline=60.0) for at in (1.0, 3.0)]
    limits = ScheduleLimits(8, 500, short_batch=2)
    record = simulate([*bulk, *uploads], limits, (0.0, 0.1))
    sizes = {batch.began: len(batch.parts) for batch in record.batches}
    # The first has to wait for what nobody knew of: the second one not.
    assert {size for began, size in sizes.items() if began < 1.0} == {8}
    assert {size for began, size in sizes.items() if 1.7 < began < 12.9} == {1, 2}
    assert {size for began, size in sizes.items() if 13.1 < began < 35.0} == {8}
    assert record.ends[401][1] <= 3.0 + 0.2 + 0.1 + 1e-9


def test_a_batch_that_fails_is_tried_in_halves_until_the_guilty_one_is_found() -> None:
    arrivals = [Arrival(0.0, poisoned=(0,) if i == 5 else ()) for i in range(8)]
    record = simulate(arrivals, ScheduleLimits(8, 100), (0.0, 0.1))
    assert {image for image, (end, _) in record.ends.items() if end == "failed"} == {5}
    assert len(record.done()) == 7


def test_an_estimate_that_was_too_high_is_forgotten() -> None:
    times = BatchTimes({1: 0.1, 4: 0.1})
    for _ in range(30):
        times.observe(1, 60.0)
    assert times(1) > 1
    arrivals = [Arrival(at=i / 10, deadline=i / 10 + 1) for i in range(400)]
    limits = ScheduleLimits(4, 100)
    record = Simulation(arrivals, limits, lambda size: 0.1, times).run()
    assert 399 in record.done()


@pytest.mark.parametrize("overlap", [1, 2])
def test_less_and_less_is_taken_in_while_a_batch_does_not_come_back(overlap: int) -> None:
    schedule = Schedule(BatchTimes({1: 0.1}), ScheduleLimits(1, 100, overlap=overlap))

    def add(now: float, budget: float = 8.0) -> int:
        return schedule.add(
            1, priority=Priority.INTERACTIVE, deadline=now + budget, client="", now=now
        )

    for _ in range(overlap):
        add(0.0)
        assert schedule.next(0.0).batch is not None
    due = 0.1 * overlap
    assert schedule.backlog(due) == pytest.approx(0.0)
    assert schedule.backlog(due + 0.1) == pytest.approx(0.1)
    schedule.remove(add(due + 0.1, budget=1.0))
    assert schedule.backlog(3.1) == pytest.approx(3.1 - due)
    with pytest.raises(DeadlineUnmeetableError):
        add(9.0)
    schedule.finished(0, 9.0)
    schedule.remove(add(9.0, budget=1.0))


def test_a_device_that_can_take_a_batch_is_not_held_up_by_one_that_hangs() -> None:
    schedule = Schedule(BatchTimes({1: 0.1}), ScheduleLimits(1, 100, overlap=2))
    for now in (0.0, 50.0):
        schedule.add(1, priority=Priority.INTERACTIVE, deadline=now + 1.0, client="", now=now)
        step = schedule.next(now)
        assert step.batch is not None
        assert not step.refused


def test_an_idle_device_may_wait_for_a_batch_to_fill() -> None:
    limits = ScheduleLimits(max_batch=4, max_queue=100, max_delay=0.05)
    arrivals = [Arrival(0.0), Arrival(0.02), Arrival(0.2, deadline=0.22)]
    record = simulate(arrivals, limits, (0.01, 0.0))
    assert [batch.began for batch in record.batches] == [0.05, pytest.approx(0.21)]


def test_a_new_measurement_changes_the_batches_that_come_and_loses_no_view() -> None:
    times = BatchTimes({1: 0.01})
    schedule = Schedule(times, ScheduleLimits(max_batch=1, max_queue=20, short_batch=1))
    jobs = [(3, Priority.INTERACTIVE), (3, Priority.INTERACTIVE), (4, Priority.BULK)]
    waiting = {
        schedule.add(views, priority=priority, deadline=math.inf, client="", now=0.0)
        for views, priority in jobs
    }
    sizes, now = [], 0.0
    while (batch := schedule.next(now).batch) is not None:
        sizes.append(len(batch.parts))
        if len(sizes) == 1:
            times.replace({1: 0.01, 8: 0.02})
            schedule.resize(4, 2)
        now += times(sizes[-1])
        waiting -= set(schedule.finished(batch.number, now).completed)
    assert not waiting
    assert sizes == [1, 4, 2, 2, 1]  # bulk work fills up the last batch of uploads
    assert schedule.backlog(now) == 0
